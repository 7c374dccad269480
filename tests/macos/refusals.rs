//! What a real Mac refuses, and Linux does not: programs in private directories for other users, limits, long options, files of others.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::mac::Mac;
use crate::migrate::GO;

/// The program lies where no other user can enter (`Mac::clean`), and yet its children, who are other users, start.
#[test]
fn a_program_in_a_private_directory_asks_its_children() -> Result<()> {
    let mac = Mac::official(2)?;
    ensure!(
        mac.shell("setpriv --reuid 501 --regid 20 --clear-groups cat private/program/nix-unroot").is_err(),
        "the directory is not private"
    );
    let facts = &mac.inspect()?["facts"];
    assert_eq!(facts["nix"][0]["version"], "2.34.8");
    assert_eq!(
        (&facts["database"]["integrity"], &facts["database"]["valid_paths"]),
        (&json!("ok"), &json!(0))
    );
    assert_eq!(facts["unread"], json!([]), "something could not be looked at");
    Ok(())
}

/// A child has nothing left of root.
#[test]
fn a_child_becomes_another_user_for_good() -> Result<()> {
    let mac = Mac::clean()?;
    mac.file("private/who", "#!/bin/sh\nid -ru; id -u; id -rg; id -g; id -G\n")?;
    mac.shell("chmod 0755 private/who")?;
    let ids = mac.ok("internal-become 501 20 internal-run-version /private/who")?;
    assert_eq!(ids, "501\n501\n20\n20\n20\n");
    for words in ["internal-become 501", "internal-become x 20", "internal-become 501 20 inspect --json"] {
        let output = mac.run(words)?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{words}: {output:?}");
    }
    Ok(())
}

/// A Mac refuses a limit on memory, so children have none there; the others they have.
#[test]
fn children_get_no_limit_that_a_mac_refuses() -> Result<()> {
    let mac = Mac::clean()?;
    mac.file("private/limits", "#!/bin/sh\nulimit -v; ulimit -c; ulimit -t\n")?;
    mac.shell("chmod 0755 private/limits")?;
    assert_eq!(mac.ok("internal-run-version /private/limits")?, "unlimited\n0\n5\n");
    Ok(())
}

/// Started through another program, it has no path that leads to itself.
#[test]
fn a_program_that_cannot_start_itself_changes_nothing() -> Result<()> {
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    let said = mac.shell(&format!(
        "chroot . /lib64/ld-linux-x86-64.so.2 /private/program/nix-unroot {GO} 2>&1; echo ended with $?"
    ))?;
    ensure!(
        said.contains("cannot start itself anew")
            && said.contains("copy it to /usr/local/sbin")
            && said.ends_with("ended with 3\n"),
        "{said}"
    );
    before.assert_same(&mac.manifest()?, "after a refusal")
}

#[test]
fn what_takes_long_to_remove_is_not_given_up() -> Result<()> {
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    mac.ok(GO)?;
    mac.file("private/slow-rm", "12")?;
    let output = mac.run_with(&[("NIX_UNROOT_COMMAND_LIMIT", "8")], "rollback --yes")?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(!mac.has("private/slow-rm"), "nothing was slow");
    before.assert_same(&mac.manifest()?, "after a rollback")
}

#[test]
fn another_installer_at_work_is_waited_for() -> Result<()> {
    let mac = Mac::official(2)?;
    mac.shell("cp usr/bin/sleep private/nix-installer; setsid chroot . /private/nix-installer 300 >/dev/null 2>&1 &")?;
    let before = mac.manifest()?;
    let output = mac.run(GO)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(3) && said.contains("another installer of Nix is at work"),
        "{output:?}"
    );
    before.assert_same(&mac.manifest()?, "after a refusal")
}

/// What is in a home is removed with its owner's rights: a link in it leads root nowhere.
#[test]
fn what_a_link_in_a_home_leads_to_stays() -> Result<()> {
    let mac = Mac::official(2)?;
    mac.shell(
        "mkdir -p Users/alice/.local/state/nix var/other/nix; echo x >var/other/nix/file; ln -s /var/other Users/alice/.cache; \
         ln -s /nix/x Users/alice/.nix-profile; chown -hR 501:20 Users/alice",
    )?;
    let words = "uninstall --yes --untried-on-macs --purge-homes";
    let output = mac.run(words)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(4)
            && said.contains("as alice: remove the rest yourself")
            && said.contains("/Users/alice/.cache/nix"),
        "{output:?}"
    );
    ensure!(mac.has("var/other/nix/file"), "root followed the link");
    ensure!(
        !mac.has("Users/alice/.nix-profile") && !mac.has("Users/alice/.local/state/nix"),
        "nothing was removed"
    );
    mac.shell("rm Users/alice/.cache")?;
    mac.ok("resume --yes")?;
    ensure!(!mac.has("nix/store") && mac.has("var/other/nix/file"));
    Ok(())
}
