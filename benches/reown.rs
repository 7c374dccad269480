//! The ownership change on a tree of about 20,000 inodes, there and back. Needs root.

// The macros below make a function without documentation.
#![allow(missing_docs)]

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nix_unroot::reown::{Plain, Progress, Rule, Tree, reown, restore};

const NEW_OWNER: u32 = 61_234;
const STORE_PATHS: u64 = 500;
const FILES: u64 = 38;
/// A store path's own directory, `bin`, and the files.
const INODES: u64 = STORE_PATHS * (FILES + 2);

fn there_and_back(criterion: &mut Criterion) {
    assert!(nix::unistd::geteuid().is_root(), "this benchmark changes owners: run it as root");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().join("tree");
    plant(&root).expect("a tree to re-own");
    let tree = Tree { root, skip: Vec::new(), include_root: true };
    let rule = Rule {
        plain: Plain::ROOT,
        may_be_open: Vec::new(),
        from: vec![0],
        to_uid: NEW_OWNER,
        to_gid: NEW_OWNER,
    };
    let record = dir.path().join("exceptions");
    let mut group = criterion.benchmark_group("reown");
    group.sample_size(10).throughput(Throughput::Elements(2 * INODES));
    group.bench_function("there and back", |bencher| {
        bencher.iter(|| {
            let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
            let there = reown(&tree, &rule, &record, &progress, &cancel).expect("re-owned");
            let back =
                restore(&tree, Plain::ROOT, &record, NEW_OWNER, None, &progress, &cancel).expect("restored");
            assert!(there.changed > INODES && back.changed == there.changed);
            black_box((there, back))
        });
    });
    group.finish();
}

fn plant(root: &Path) -> std::io::Result<()> {
    for path in 0..STORE_PATHS {
        let bin = root.join(format!("{path:032}-package/bin"));
        fs::create_dir_all(&bin)?;
        for file in 0..FILES - 1 {
            fs::write(bin.join(format!("file-{file}")), b"")?;
        }
        symlink("file-0", bin.join("link"))?;
    }
    Ok(())
}

criterion_group!(benches, there_and_back);
criterion_main!(benches);
