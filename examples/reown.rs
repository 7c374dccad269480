//! Gives a tree to a user and back: `reown TREE EXCEPTIONS UID` or `reown --restore TREE EXCEPTIONS UID`. For measuring;
//! see docs/performance.md.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use nix_unroot::reown::{Plain, Progress, Rule, Tree, reown, restore};

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let back = arguments.first().is_some_and(|first| first == "--restore");
    arguments.drain(..usize::from(back));
    let uid = arguments.get(2).and_then(|uid| uid.to_str()?.parse().ok());
    let ([root, record, _], Some(uid)) = (&arguments[..], uid) else {
        eprintln!("usage: reown [--restore] TREE EXCEPTIONS UID");
        return ExitCode::from(2);
    };
    let tree = Tree { root: root.into(), skip: Vec::new(), include_root: true };
    let (record, progress, cancel) = (PathBuf::from(record), Progress::default(), AtomicBool::new(false));
    let result = if back {
        restore(&tree, Plain::ROOT, &record, uid, None, &progress, &cancel)
    } else {
        let rule =
            Rule { plain: Plain::ROOT, may_be_open: Vec::new(), from: vec![0], to_uid: uid, to_gid: uid };
        reown(&tree, &rule, &record, &progress, &cancel)
    };
    match result {
        Ok(outcome) => {
            println!("{outcome:?}");
            ExitCode::from(u8::from(!outcome.is_complete()))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
