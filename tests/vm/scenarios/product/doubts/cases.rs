//! Every way in which the scanner's list may not be whole, as scripts of root that bring it about and take it away.

/// How the daemon learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The scanner says so: the variant of its `Doubt`.
    Doubt(&'static str),
    /// The scanner dies while it looks.
    Death,
    /// There is nobody to ask.
    Nobody,
}

impl Kind {
    /// What the person who collects gets to read.
    pub fn message(self) -> &'static str {
        match self {
            Self::Doubt(_) => {
                "nix-root-scan is not sure that it saw every root: see journalctl -u nix-root-scan"
            }
            Self::Death => "is not in the Nix store",
            Self::Nobody => "onnect",
        }
    }
}

/// One of them.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    /// What the journal of the scanner's unit says then.
    pub journal: &'static str,
    /// Makes it so; may use the functions of `fixtures/doubts/prelude.sh`.
    pub make: &'static str,
    /// The remedy.
    pub undo: &'static str,
}

const fn case(
    name: &'static str,
    kind: Kind,
    journal: &'static str,
    make: &'static str,
    undo: &'static str,
) -> Case {
    Case { name, kind, journal, make, undo }
}

const BLIND: Kind = Kind::Doubt("Blind");
const UNREADABLE: Kind = Kind::Doubt("Unreadable");
const NEVER_SEEN: Kind = Kind::Doubt("NeverSeen");
const LIMIT: Kind = Kind::Doubt("Limit");

#[rustfmt::skip] // One case, one paragraph: a table.
pub const CASES: &[Case] = &[
    case("without CAP_SYS_PTRACE", BLIND, "we do not hold CAP_SYS_PTRACE",
        "unit CapabilityBoundingSet=~CAP_SYS_PTRACE", "unit"),
    case("without CAP_DAC_READ_SEARCH", BLIND, "we do not hold CAP_DAC_READ_SEARCH",
        "unit CapabilityBoundingSet=~CAP_DAC_READ_SEARCH", "unit"),
    case("processes hidden (hidepid)", BLIND, "we do not hold CAP_SYS_PTRACE",
        "unit ProtectProc=invisible CapabilityBoundingSet=~CAP_SYS_PTRACE", "unit"),
    case("a user namespace of its own", UNREADABLE, "cannot look at /proc/1/exe: Permission denied",
        "unit PrivateUsers=yes", "unit"),
    case("/proc without settings", UNREADABLE, "cannot look at /proc/sys/kernel",
        "unit ProcSubset=pid", "unit"),
    case("/proc of no process at all", UNREADABLE, "cannot look at /proc/self: No such file or directory",
        "mkdir -p /mnt/proc
         setsid unshare --pid --fork sh -c 'mount -t proc proc /mnt/proc; exec sleep 1000004' </dev/null >/dev/null 2>&1 &
         for i in $(seq 100); do if mountpoint -q /mnt/proc; then break; fi; sleep 0.02; done
         unit BindPaths=/mnt/proc:/proc",
        "unit; umount /mnt/proc; pkill -f '^sleep 1000004'"),
    case("/proc is an empty directory", BLIND, "/proc is not the kernel's",
        "unit ExecStart= \"ExecStart=+/usr/bin/unshare --mount sh -c 'mount -t tmpfs none /proc; exec $program'\"", "unit"),
    case("/proc of the namespace above", BLIND, "/proc shows another PID namespace than ours",
        "nested", "unit"),
    case("a PID namespace of its own", BLIND, "we are process 1 of a PID namespace of our own (PrivatePIDs=?)",
        "nested --mount-proc", "unit"),
    case("something mounted over a process", BLIND, "something is mounted over /proc/",
        "mkdir -p /var/empty; setsid sleep 1000005 </dev/null >/dev/null 2>&1 & mount --bind /var/empty /proc/$!; unit",
        "umount /proc/$(awk '/ \\/proc\\/[0-9]+ / { print substr($5, 7) }' /proc/self/mountinfo); pkill -f '^sleep 1000005'; unit"),
    case("no second process", BLIND, "cannot start a helper to look at files",
        "unit 'SystemCallFilter=~clone clone3 fork vfork'", "unit"),
    case("no open files left", UNREADABLE, "Too many open files",
        "unit LimitNOFILE=24; setpriv --reuid=alice --clear-groups mkdir -p /nix/var/nix/gcroots/per-user/alice/$(printf 'd/%.0s' $(seq 30))",
        "rm -r /nix/var/nix/gcroots/per-user/alice/d; unit"),
    case("gcroots is a link", UNREADABLE, "cannot look at /nix/var/nix/gcroots: Not a directory",
        "mv /nix/var/nix/gcroots /nix/var/nix/real; ln -s real /nix/var/nix/gcroots",
        "rm /nix/var/nix/gcroots; mv /nix/var/nix/real /nix/var/nix/gcroots"),
    case("a directory of roots refuses", UNREADABLE, "cannot look at /nix/var/nix/gcroots/per-user/alice/odd: Permission denied",
        "fuse /nix/var/nix/gcroots/per-user/alice/odd user_id=1000 sleep 1000006",
        "pkill -f '^sleep 1000006'; umount -l /nix/var/nix/gcroots/per-user/alice/odd; rmdir /nix/var/nix/gcroots/per-user/alice/odd"),
    case("a home refuses", NEVER_SEEN, "points to /home/alice/odd/x, which cannot be seen (Permission denied)",
        "fuse /home/alice/odd user_id=1000 sleep 1000006; ln -s /home/alice/odd/x /nix/var/nix/gcroots/auto/odd",
        "rm /nix/var/nix/gcroots/auto/odd; pkill -f '^sleep 1000006'; umount -l /home/alice/odd; rmdir /home/alice/odd"),
    case("a home does not answer", NEVER_SEEN, "points to /home/alice/hung/x, which cannot be seen (no answer)", "hang", "unhang"),
    case("the memory is a directory", UNREADABLE, "cannot look at /var/lib/nix-root-scan/remembered: Is a directory",
        "cd /var/lib/nix-root-scan; mv remembered kept; mkdir remembered",
        "cd /var/lib/nix-root-scan; rmdir remembered; mv kept remembered"),
    case("the memory is damaged", Kind::Doubt("Damaged"), "/var/lib/nix-root-scan/remembered is damaged",
        "cd /var/lib/nix-root-scan; cp -a remembered kept; sed -i s/alice/alicf/ remembered",
        "cd /var/lib/nix-root-scan; mv kept remembered"),
    case("the memory is cut short", Kind::Doubt("Damaged"), "/var/lib/nix-root-scan/remembered is damaged",
        "cd /var/lib/nix-root-scan; cp -a remembered kept; truncate -s -10 remembered",
        "cd /var/lib/nix-root-scan; mv kept remembered"),
    case("the disk of the memory is full", Kind::Doubt("Unwritable"), "cannot remember the roots",
        "d=/var/lib/nix-root-scan; ln -s $(readlink /root/work/result) /root/new; ln -s /root/new /nix/var/nix/gcroots/auto/new
         cp -a $d/remembered /root; u=$(id -u nix-root-scan)
         mount -t tmpfs -o size=32k,mode=0700,uid=$u,gid=$(id -g nix-root-scan) full $d; cp -a /root/remembered $d
         head -c 1M /dev/zero >$d/fill || true; unit",
        "umount -l /var/lib/nix-root-scan; rm /root/new /root/remembered /nix/var/nix/gcroots/auto/new; unit"),
    case("a huge memory", LIMIT, "more than 33554432 bytes of remembered roots",
        "cd /var/lib/nix-root-scan; mv remembered kept; truncate -s 33M remembered; chown nix-root-scan: remembered",
        "cd /var/lib/nix-root-scan; mv kept remembered"),
    case("directories without end", LIMIT, "more than 64 levels of directories",
        "cd /nix/var/nix/gcroots/per-user/alice; p=$(printf 'd/%.0s' $(seq 70)); setpriv --reuid=alice --clear-groups mkdir -p $p",
        "rm -r /nix/var/nix/gcroots/per-user/alice/d"),
    case("links without number", LIMIT, "more than 400000 indirect roots",
        "d=/nix/var/nix/gcroots/per-user/alice/many; mkdir $d; mount -t tmpfs -o nr_inodes=0 many $d; cd $d
         perl -e 'symlink \"/nowhere/\", $_ or die $! for 0..400000'",
        "umount -l /nix/var/nix/gcroots/per-user/alice/many; rmdir /nix/var/nix/gcroots/per-user/alice/many"),
    case("store paths without number", LIMIT, "more than 400000 different store paths",
        "setsid setpriv --reuid=bob --clear-groups perl /opt/doubts/many.pl </dev/null >/dev/null 2>&1; sleep 0.5",
        "pkill -f '^/bin/sleep 1000003'"),
    case("files without number that nobody can place", LIMIT, "more than 10000 files that no name places",
        "mkdir -p /srv/hidden /srv/shown; (cd /srv/hidden; seq 0 10000 | xargs touch)
         setsid prlimit --nofile=20000 unshare --mount perl -e 'system qw(mount --bind /srv/hidden /srv/shown);
             for (0..10000) { open $f[$_], \"<\", \"/srv/shown/$_\" or die $! }
             system qw(umount -l /srv/shown); open R, \">\", \"/run/hidden\"; sleep 1000006' </dev/null >/dev/null 2>&1 &
         for i in $(seq 200); do if test -e /run/hidden; then break; fi; sleep 0.05; done",
        "pkill -f '^perl -e system'; rm -r /srv/hidden /srv/shown /run/hidden"),
    case("helpers die again and again", LIMIT, "more than 16 look-ups without an answer",
        "hang; while_it_scans kill_helpers", "unhang"),
    case("entries that change at each look", Kind::Doubt("Unsteady"), "kept changing while it was read",
        "fuse /nix/var/nix/gcroots/per-user/alice/odd user_id=0,allow_other perl /opt/doubts/random.pl $(id -u nix-root-scan)",
        "pkill -f '^perl /opt/doubts/random.pl'; umount -l /nix/var/nix/gcroots/per-user/alice/odd; rmdir /nix/var/nix/gcroots/per-user/alice/odd"),
    case("SIGKILL", Kind::Death, "status=9/KILL", "hang; while_it_scans pkill -KILL -x nix-root-scan", "unhang"),
    case("SIGSEGV", Kind::Death, "status=11/SEGV", "hang; while_it_scans twice SEGV", "unhang"),
    case("SIGABRT", Kind::Death, "status=6/ABRT", "hang; while_it_scans pkill -ABRT -x nix-root-scan", "unhang"),
    case("a forbidden system call", Kind::Death, "status=31/SYS",
        "unit SystemCallErrorNumber=kill 'SystemCallFilter=~pipe2'", "unit"),
    case("no memory left", Kind::Death, "status=6/ABRT",
        "setsid setpriv --reuid=bob --clear-groups perl /opt/doubts/many.pl </dev/null >/dev/null 2>&1; sleep 0.5; unit LimitDATA=8M",
        "pkill -f '^/bin/sleep 1000003'; unit"),
    case("the time limit of the unit", Kind::Death, "status=9/KILL", "hang; unit RuntimeMaxSec=1 TimeoutStopSec=1", "unhang; unit"),
    case("the program is gone", Kind::Nobody, "Trigger limit hit, refusing further activation",
        "systemctl stop nix-root-scan.service; mv $program /root/program", "mv /root/program $program; sleep 6; systemctl start nix-root-scan.service"),
    case("the socket is stopped", Kind::Nobody, "", "systemctl stop nix-root-scan.service nix-root-scan.socket",
        "systemctl start nix-root-scan.socket"),
    case("the socket is removed", Kind::Nobody, "", "rm /nix/var/nix/gc-roots-socket/socket",
        "systemctl stop nix-root-scan.service; systemctl restart nix-root-scan.socket"),
];
