//! Units of Nix, and others that name it: from the unit directories, and on a live machine with what systemd says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::machine::As;
use super::nix_paths;
use super::reader::Reader;
use super::{DropIn, Init, Unit};
use crate::types::UnitName;

/// Unit directories, the strongest first (systemd.unit(5)).
const DIRECTORIES: [&str; 9] = [
    "/etc/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];
/// Units that are listed whatever their files say.
const KNOWN: [&str; 6] = [
    "nix-daemon.service",
    "nix-daemon.socket",
    "nix-daemon-gate.service",
    "nix-root-scan.service",
    "nix-root-scan.socket",
    "determinate-nixd.socket",
];
const PROPERTIES: &str =
    "--property=Id,LoadState,FragmentPath,DropInPaths,UnitFileState,ActiveState,User,ExecStart,Listen";

/// In the order of their names.
pub(crate) fn gather(reader: &Reader<'_>, init: &Init) -> Vec<Unit> {
    let additions = Additions::find(reader);
    let mut units: Vec<Unit> = candidates(reader)
        .into_iter()
        .filter_map(|(name, fragment)| from_files(reader, &additions, name, fragment))
        .collect();
    if matches!(init, Init::Systemd { .. }) {
        add_what_systemd_says(reader, &mut units);
    }
    units
}

/// A unit as its files have it, whatever it is for.
#[derive(Debug)]
pub(crate) struct UnitText {
    /// The strongest fragment.
    pub fragment: PathBuf,
    /// Its drop-ins, in order.
    pub drop_ins: Vec<PathBuf>,
    /// Fragment and drop-ins, one after the other.
    pub text: String,
}

impl UnitText {
    /// All values of a key, in order; an empty one forgets those before it.
    pub fn values(&self, key: &str) -> Vec<String> {
        values(&self.text, key)
    }

    /// Whether what it starts is started as root.
    pub fn is_roots(&self) -> bool {
        self.values("User").pop().is_none_or(|user| user == "root" || user == "0")
    }
}

/// Every unit, but masked ones, in the order of their names.
pub(crate) fn all(reader: &Reader<'_>) -> Vec<UnitText> {
    let masked = |path: &Path| reader.machine.read_link(path).is_ok_and(|to| to == Path::new("/dev/null"));
    let additions = Additions::find(reader);
    let unit = |(name, fragment): (UnitName, PathBuf)| {
        let drop_ins = additions.of(reader, &name);
        let first = reader.text(&fragment).unwrap_or_default();
        let texts = drop_ins.iter().map(|file| file.text.as_str());
        let text = std::iter::once(first.as_str()).chain(texts).collect::<Vec<_>>().join("\n");
        UnitText { fragment, drop_ins: drop_ins.into_iter().map(|file| file.path).collect(), text }
    };
    candidates(reader).into_iter().filter(|(_, fragment)| !masked(fragment)).map(unit).collect()
}

/// Each unit's strongest fragment.
fn candidates(reader: &Reader<'_>) -> BTreeMap<UnitName, PathBuf> {
    let mut found = BTreeMap::new();
    for path in DIRECTORIES.iter().flat_map(|directory| reader.list(directory)) {
        let name = path.file_name().and_then(|name| UnitName::parse(name.to_str()?));
        if let Some(name) = name.filter(|_| !reader.machine.stat(&path).is_ok_and(|found| found.is_dir())) {
            found.entry(name).or_insert(path);
        }
    }
    found
}

/// The unit as its files describe it; `None` when it has nothing to do with Nix.
fn from_files(reader: &Reader<'_>, additions: &Additions, name: UnitName, fragment: PathBuf) -> Option<Unit> {
    let known = KNOWN.contains(&name.as_str());
    // A link to /dev/null is a mask.
    let real = reader.machine.real(&fragment).ok();
    let masked = reader.machine.read_link(&fragment).is_ok_and(|target| target == Path::new("/dev/null"));
    let text = if masked { String::new() } else { reader.text(&fragment).unwrap_or_default() };
    let in_nix = real.as_ref().is_some_and(|real| real.starts_with("/nix"));
    if !known && !in_nix && !concerns_nix(&text) {
        return None;
    }
    let drop_ins = additions.of(reader, &name);
    let lines: Vec<_> =
        std::iter::once(text.as_str()).chain(drop_ins.iter().map(|file| file.text.as_str())).collect();
    let lines = lines.join("\n");
    let user = values(&lines, "User").pop();
    let exec_start = values(&lines, "ExecStart").first().and_then(|line| program(line));
    let listen = values(&lines, "ListenStream").into_iter().filter(|value| value.starts_with('/'));
    Some(Unit {
        user,
        capabilities: values(&lines, "AmbientCapabilities").pop(),
        exec_start,
        listen: listen.map(PathBuf::from).collect(),
        socket_mode: values(&lines, "SocketMode").pop(),
        socket_group: values(&lines, "SocketGroup").pop(),
        file_state: file_state(reader, &name, &fragment, masked, &text),
        active_state: "inactive".to_owned(),
        real_fragment: real.filter(|_| !masked),
        fragment: Some(fragment),
        drop_ins,
        name,
    })
}

fn concerns_nix(text: &str) -> bool {
    let telling = |line: &&str| {
        let line = line.trim_start();
        !["#", ";", "Documentation=", "Description="].iter().any(|start| line.starts_with(start))
    };
    text.lines().filter(telling).any(|line| line.contains("nix-daemon") || !nix_paths::named(line).is_empty())
}

/// The directories of drop-ins. Few of some hundred units have one: looking for each of them in each place would take longer than
/// all the rest.
struct Additions(BTreeSet<PathBuf>);

impl Additions {
    fn find(reader: &Reader<'_>) -> Self {
        let there = DIRECTORIES.iter().flat_map(|directory| reader.list(directory));
        Self(there.filter(|path| path.extension().is_some_and(|extension| extension == "d")).collect())
    }

    /// The drop-ins of one unit, in the order of their names; of two with one name the one in the stronger directory counts.
    fn of(&self, reader: &Reader<'_>, name: &UnitName) -> Vec<DropIn> {
        let mut found = BTreeMap::new();
        let places = DIRECTORIES.iter().map(|directory| PathBuf::from(format!("{directory}/{name}.d")));
        for path in places.filter(|place| self.0.contains(place)).flat_map(|place| reader.list(place)) {
            if let Some(file) = path.file_name().filter(|_| path.extension().is_some_and(|ext| ext == "conf"))
            {
                found.entry(file.to_owned()).or_insert(path);
            }
        }
        found
            .into_values()
            .map(|path| DropIn { text: reader.text(&path).unwrap_or_default(), path })
            .collect()
    }
}

/// See [`UnitText::values`].
fn values(text: &str, key: &str) -> Vec<String> {
    let mut values = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        match line
            .trim()
            .strip_prefix(key)
            .and_then(|rest| rest.trim_start().strip_prefix('='))
            .map(str::trim)
        {
            Some("") => values.clear(),
            Some(value) => values.push(value.to_owned()),
            None => {}
        }
    }
    values
}

/// The program of an `ExecStart=` line, without systemd's prefixes.
pub(crate) fn program(line: &str) -> Option<PathBuf> {
    let word = line.trim_start_matches(['@', '-', ':', '+', '!', '|']).split_whitespace().next()?;
    Some(PathBuf::from(word.trim_matches('"')))
}

/// What `systemctl is-enabled` would say, as far as files tell.
fn file_state(reader: &Reader<'_>, name: &UnitName, fragment: &Path, masked: bool, text: &str) -> String {
    let wanted = ["/etc/systemd/system", "/run/systemd/system"].iter().any(|directory| {
        let pulls = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "wants" || ext == "requires");
        reader
            .list(directory)
            .iter()
            .filter(|path| pulls(path))
            .any(|path| reader.machine.lstat(&path.join(name.as_str())).is_ok())
    });
    let linked = reader.machine.read_link(fragment).is_ok();
    let state = match () {
        () if masked => "masked",
        () if wanted => "enabled",
        () if linked => "linked",
        () if text.lines().any(|line| line.trim() == "[Install]") => "disabled",
        () => "static",
    };
    state.to_owned()
}

fn add_what_systemd_says(reader: &Reader<'_>, units: &mut [Unit]) {
    // Without an instance's name a template is no unit.
    let plain = units.iter().map(|unit| unit.name.as_str()).filter(|name| !name.contains("@."));
    let names: BTreeSet<_> = plain.chain(KNOWN).collect();
    let args: Vec<_> = ["show", PROPERTIES, "--"].into_iter().chain(names).collect();
    match reader.machine.run(As::Self_, "systemctl", &args) {
        Ok(said) => said.split("\n\n").for_each(|block| add_properties(reader, units, block)),
        Err(why) => reader.note("systemctl show", why),
    }
    let templates =
        units.iter().filter(|unit| unit.name.as_str().contains("@.")).map(|unit| unit.name.to_string());
    let templates: Vec<_> = templates.collect();
    if templates.is_empty() {
        return;
    }
    let mut args =
        vec!["list-unit-files".to_owned(), "--no-legend".to_owned(), "--plain".to_owned(), "--".to_owned()];
    args.extend(templates);
    let states = reader.machine.run(As::Self_, "systemctl", &args).unwrap_or_default();
    for (name, state) in states.lines().filter_map(|line| line.split_once(char::is_whitespace)) {
        let unit = units.iter_mut().find(|unit| unit.name.as_str() == name);
        if let (Some(unit), Some(state)) = (unit, state.split_whitespace().next()) {
            unit.file_state = state.to_owned();
        }
    }
}

fn add_properties(reader: &Reader<'_>, units: &mut [Unit], block: &str) {
    let all = |key: &str| -> Vec<&str> {
        block.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let one = |key: &str| all(key).first().copied().filter(|value| !value.is_empty());
    let Some(unit) = units.iter_mut().find(|unit| one("Id") == Some(unit.name.as_str())) else { return };
    unit.active_state = one("ActiveState").unwrap_or("inactive").to_owned();
    if let Some(state) = one("UnitFileState") {
        unit.file_state = state.to_owned();
    }
    if one("LoadState") != Some("loaded") {
        return;
    }
    if let Some(fragment) = one("FragmentPath").map(PathBuf::from) {
        unit.real_fragment = reader.machine.real(&fragment).ok();
        unit.fragment = Some(fragment);
    }
    let paths =
        one("DropInPaths").unwrap_or_default().split(' ').filter(|path| !path.is_empty()).map(PathBuf::from);
    unit.drop_ins = paths.map(|path| DropIn { text: reader.text(&path).unwrap_or_default(), path }).collect();
    unit.user = one("User").map(str::to_owned);
    if let Some(exec) = one("ExecStart") {
        let path = exec.split(" ; ").find_map(|part| part.trim_start_matches("{ ").strip_prefix("path="));
        unit.exec_start = path.map(PathBuf::from);
    }
    let streams = all("Listen").into_iter().filter_map(|value| value.strip_suffix(" (Stream)"));
    unit.listen = streams.filter(|path| path.starts_with('/')).map(PathBuf::from).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Machine;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(root: &Path, target: &str, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn find<'u>(units: &'u [Unit], name: &str) -> &'u Unit {
        units.iter().find(|unit| unit.name.as_str() == name).unwrap_or_else(|| panic!("{name} is not there"))
    }

    fn machine_root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let store = "nix/store/00000000000000000000000000000000-nix-2.34.8/lib/systemd/system";
        let service =
            "[Service]\nExecStart=@/nix/store/x/bin/nix-daemon nix-daemon --daemon\nExecStart=/bin/second\n";
        write(root, &format!("{store}/nix-daemon.service"), service);
        write(
            root,
            &format!("{store}/nix-daemon.socket"),
            "[Socket]\nListenStream=/old\n[Install]\nWantedBy=x\n",
        );
        link(root, &format!("/{store}/nix-daemon.service"), "etc/systemd/system/nix-daemon.service");
        write(root, "etc/systemd/system/nix-daemon.service.d/b.conf", "[Service]\nUser=nix\n");
        write(root, "usr/lib/systemd/system/nix-daemon.service.d/b.conf", "[Service]\nUser=weaker\n");
        write(root, "usr/lib/systemd/system/nix-daemon.service.d/a.conf", "[Service]\nUser=first\n");
        link(root, &format!("/{store}/nix-daemon.socket"), "etc/systemd/system/nix-daemon.socket");
        write(
            root,
            "etc/systemd/system/nix-daemon.socket.d/a.conf",
            "[Socket]\nListenStream=\nListenStream=/new\n",
        );
        link(root, "../nix-daemon.socket", "etc/systemd/system/sockets.target.wants/nix-daemon.socket");
        link(root, "/dev/null", "etc/systemd/system/nix-root-scan.service");
        write(
            root,
            "etc/systemd/system/report.service",
            "[Service]\nExecStart=-/nix/var/nix/profiles/x/bin/report\n",
        );
        write(
            root,
            "usr/lib/systemd/system/unix.service",
            "# /nix/store\n[Service]\nExecStart=/usr/share/nix/x\n",
        );
        dir
    }

    #[test]
    fn files_alone_tell_most() {
        let dir = machine_root();
        let machine = Machine::at(dir.path());
        let units = gather(&Reader::new(&machine), &Init::Other { name: "x".to_owned() });
        let names: Vec<_> = units.iter().map(|unit| unit.name.as_str()).collect();
        assert_eq!(
            names,
            ["nix-daemon.service", "nix-daemon.socket", "nix-root-scan.service", "report.service"]
        );
        let service = find(&units, "nix-daemon.service");
        assert_eq!(service.exec_start.as_deref(), Some(Path::new("/nix/store/x/bin/nix-daemon")));
        assert_eq!(service.fragment.as_deref(), Some(Path::new("/etc/systemd/system/nix-daemon.service")));
        assert!(service.real_fragment.as_ref().unwrap().starts_with("/nix/store"));
        assert_eq!((service.user.as_deref(), service.file_state.as_str()), (Some("nix"), "linked"));
        assert_eq!(service.drop_ins.len(), 2, "a stronger directory's file hides one of the same name");
        let socket = find(&units, "nix-daemon.socket");
        assert_eq!(
            (&socket.listen[..], socket.file_state.as_str()),
            (&[PathBuf::from("/new")][..], "enabled")
        );
        assert_eq!(find(&units, "nix-root-scan.service").file_state, "masked");
    }

    #[test]
    fn systemd_knows_better() {
        let dir = machine_root();
        let names = "determinate-nixd.socket nix-daemon-gate.service nix-daemon.service nix-daemon.socket nix-root-scan.service nix-root-scan.socket report.service";
        let said = "Id=determinate-nixd.socket\nLoadState=not-found\nActiveState=inactive\n\n\
            Id=nix-daemon.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\
            FragmentPath=/etc/systemd/system/nix-daemon.service\nDropInPaths=/etc/systemd/system/nix-daemon.service.d/b.conf\n\
            ExecStart={ path=/usr/bin/nix-daemon ; argv[]=nix-daemon --daemon ; ignore_errors=no ; pid=46 }\nUser=\n\n\
            Id=nix-daemon.socket\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\
            Listen=/a (Stream)\nListen=/b (Datagram)\nListen=/c (Stream)\n";
        let machine =
            Machine::at(dir.path()).with_output(&format!("systemctl show {PROPERTIES} -- {names}"), said);
        let reader = Reader::new(&machine);
        let units = gather(&reader, &Init::Systemd { version: None });
        assert_eq!(reader.into_unread(), []);
        let service = find(&units, "nix-daemon.service");
        assert_eq!((service.active_state.as_str(), service.user.as_deref()), ("active", None));
        assert_eq!(service.exec_start.as_deref(), Some(Path::new("/usr/bin/nix-daemon")));
        assert_eq!(service.drop_ins.len(), 1);
        assert_eq!(find(&units, "nix-daemon.socket").listen, [PathBuf::from("/a"), PathBuf::from("/c")]);
    }
}
