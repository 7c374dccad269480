use super::*;

const A: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash";
const B: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-out";

fn request() -> Request<'static> {
    Request {
        builder: b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash/bin/sh",
        args: vec![b"-e", b"/build/x"],
        env: vec![
            (b"out", B.as_bytes()),
            (b"TMPDIR", b"/build"),
            (b"f", b"/build/.attr-0"),
            (b"g", b"/builds"),
        ],
        store: b"/nix/store",
        build_dir: b"/build",
        inputs: vec![A.as_bytes()],
        outputs: vec![B.as_bytes()],
        files: vec![(b".attr-0", b"x")],
    }
}

fn checked(request: &Request<'_>) -> Result<Build> {
    check(request, Path::new("/nix/store"), Path::new("/w/7/build"))
}

#[test]
fn a_build_is_taken() {
    let build = checked(&request()).unwrap();
    let words =
        |list: &[CString]| list.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(words(&build.argv), ["sh", "-e", "/build/x"]);
    assert_eq!(
        words(&build.env),
        [&format!("out={B}"), "TMPDIR=/w/7/build", "f=/w/7/build/.attr-0", "g=/builds"]
    );
    assert!(!build.network);
    let mut fixed = request();
    fixed.env.push((b"NIX_OUTPUT_CHECKED", b"1"));
    assert!(checked(&fixed).unwrap().network);
    let mut shell = request();
    shell.builder = b"/bin/sh";
    assert_eq!(checked(&shell).unwrap().builder.to_str(), Ok("/bin/sh"));
}

/// Each row makes one thing of a good request bad.
#[test]
fn hostile_requests_are_refused() {
    type Change = fn(&mut Request<'static>);
    let rows: [(&str, Change); 37] = [
        ("builder: outside", |r| r.builder = b"/usr/bin/id"),
        ("builder: relative", |r| r.builder = b"bash"),
        ("builder: empty", |r| r.builder = b""),
        ("builder: of nix itself", |r| r.builder = b"builtin:fetchurl"),
        ("builder: no input", |r| r.inputs.clear()),
        ("builder: climbs", |r| {
            r.builder = b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash/../../../etc/x";
        }),
        ("builder: dot", |r| r.builder = b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash/./x"),
        ("builder: empty part", |r| r.builder = b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash//x"),
        ("builder: ends in a slash", |r| r.builder = b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash/"),
        ("builder: NUL", |r| r.builder = b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash/a\0b"),
        ("builder: not quite a shell", |r| r.builder = b"/bin/shx"),
        ("argument: NUL", |r| r.args.push(b"a\0b")),
        ("variable: no name", |r| r.env.push((b"", b"x"))),
        ("variable: =", |r| r.env.push((b"a=b", b"x"))),
        ("variable: NUL in name", |r| r.env.push((b"a\0", b"x"))),
        ("variable: NUL in value", |r| r.env.push((b"a", b"\0"))),
        ("variable: twice", |r| r.env.push((b"out", b"x"))),
        ("store: another", |r| r.store = b"/tmp/store"),
        ("store: longer", |r| r.store = b"/nix/store/"),
        ("build directory: relative", |r| r.build_dir = b"build"),
        ("build directory: root", |r| r.build_dir = b"/"),
        ("build directory: none", |r| r.build_dir = b""),
        ("input: outside", |r| r.inputs.push(b"/etc/shadow")),
        ("input: the store", |r| r.inputs.push(b"/nix/store")),
        ("input: with an empty name", |r| r.inputs.push(b"/nix/store/")),
        ("input: inside", |r| r.inputs.push(b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-bash/bin")),
        ("input: links", |r| r.inputs.push(b"/nix/store/.links")),
        ("input: climbs", |r| r.inputs.push(b"/nix/store/../../etc")),
        ("output: none", |r| r.outputs.clear()),
        ("output: outside", |r| r.outputs.push(b"/etc/cron.d/x")),
        ("output: an input", |r| r.outputs.push(A.as_bytes())),
        ("output: twice", |r| r.outputs.push(B.as_bytes())),
        ("output: climbs", |r| {
            r.outputs.push(b"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x/../../../etc/x");
        }),
        ("file: directory", |r| r.files.push((b"a/b", b""))),
        ("file: parent", |r| r.files.push((b"..", b""))),
        ("file: no name", |r| r.files.push((b"", b""))),
        ("file: twice", |r| r.files.push((b".attr-0", b""))),
    ];
    for (what, change) in rows {
        let mut request = request();
        change(&mut request);
        assert!(checked(&request).is_err(), "{what} was taken");
    }
    let names: Vec<String> = (0..=MOST_OUTPUTS).map(|number| format!("{B}{number}")).collect();
    let mut many = request();
    many.outputs = names.iter().map(|name| name.as_bytes()).collect();
    assert!(checked(&many).is_err(), "too many outputs");
    many.outputs.pop();
    assert!(checked(&many).is_ok());
}
