//! The unit of the daemon gives away as little as builds allow. `docs/security.md` says what is left off and why.

use crate::harness::machine::{Machine, quote};
use anyhow::{Context, Result, ensure};

/// `systemd-analyze security` may say at most this.
const MOST: f32 = 4.0;
const UNIT: &str = "nix-daemon@one.service";
/// Where the builds' tools and their source lie.
const DIR: &str = "/opt/kinds";

const KINDS_NIX: &str = r#"{ name, script, more }:
let tools = "${/opt/kinds/tools}"; bb = "${tools}/busybox"; in
derivation ({ inherit name bb tools; system = builtins.currentSystem; builder = bb; args = [ "sh" "-ec" script ]; } // import (builtins.toFile "more.nix" more))
"#;

/// A static program for 32-bit x86 that exits with status 0 (`xor %ebx,%ebx; xor %eax,%eax; inc %eax; int $0x80`): ELF header, one
/// program header, code.
const EXIT_32: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0\x54\x80\x04\x08\x34\0\0\0\0\0\0\0\0\0\0\0\
    \x34\0\x20\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x80\x04\x08\0\x80\x04\x08\x5b\0\0\0\x5b\0\0\0\x05\0\0\0\0\x10\0\0\
    \x31\xdb\x31\xc0\x40\xcd\x80";

/// Kinds of builds: attributes, a script, and what it must write. A kernel without KVM has no device behind the node, but may not say that
/// the daemon's unit forbids it.
const KINDS: [(&str, &str, &str, &[&str]); 4] = [
    ("sandboxed", "", "umask >$out; $bb mkdir -m 755 d; $bb stat -c %a d >>$out", &["0022\n755"]),
    (
        "fixed-output",
        r#"outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "ok\n";"#,
        "echo ok >$out",
        &["ok"],
    ),
    (
        "i686",
        r#"system = "i686-linux";"#,
        "$bb uname -m >$out; $tools/exit32; echo ran >>$out",
        &["i686\nran"],
    ),
    (
        "kvm",
        r#"requiredSystemFeatures = [ "kvm" ];"#,
        "exec 2>$out; ( : <>/dev/kvm ) && echo opened >$out || :",
        &["opened", "sh: line 0: can't create /dev/kvm: No such device"],
    ),
];

/// Makes the machine one with `/dev/kvm`, from its next boot on; emulated ones have no such device.
pub fn add_kvm(machine: &Machine) -> Result<()> {
    machine.write_file("/etc/tmpfiles.d/kvm.conf", "0644", "c /dev/kvm 0666 root root - 10:232\n")?;
    machine.root("systemd-tmpfiles --create /etc/tmpfiles.d/kvm.conf")?;
    Ok(())
}

/// Fails when the unit is more exposed than it should be, or a kind of build does not work within it.
pub fn assert_hardened(machine: &Machine) -> Result<()> {
    let said = machine.root(&format!("systemd-analyze security --no-pager {UNIT}"))?;
    let last = said.lines().last().unwrap_or_default();
    println!("{last}");
    let exposure = last.split_whitespace().find_map(|word| word.parse::<f32>().ok());
    let exposure = exposure.with_context(|| format!("no number in {said}"))?;
    ensure!(exposure <= MOST, "{UNIT} is more exposed than {MOST}:\n{said}");

    machine.write_file(&format!("{DIR}/kinds.nix"), "0644", KINDS_NIX)?;
    machine.write_file(&format!("{DIR}/tools/exit32"), "0755", EXIT_32)?;
    machine.root(&format!("cp /opt/nix-unroot-tests/tools/busybox {DIR}/tools"))?;
    for (kind, attributes, script, expected) in KINDS {
        let path = machine.user(
            "bob",
            &format!(
                "nix-build --no-out-link {DIR}/kinds.nix --argstr name {kind} --argstr script {} --argstr more {}",
                quote(script),
                quote(&format!("{{ {attributes} }}"))
            ),
        )?;
        let wrote = machine.root(&format!("cat {path}"))?;
        println!("{kind}: {}", wrote.replace('\n', ", "));
        ensure!(expected.contains(&wrote.as_str()), "the {kind} build wrote {wrote:?}, not {expected:?}");
    }
    let closed = machine.root("find /nix/var/nix /nix/var/log -user nix -type d ! -perm -005 | head")?;
    ensure!(closed.is_empty(), "the unit's umask made directories that only the daemon can read: {closed}");
    Ok(())
}
