//! Clusters end with the process that started them, in whichever way it ends.

use std::path::Path;
use std::process::{Command, Stdio};

use harness::{Preload, Shared, Site, send_signal, wait_for};

static SITES: Shared<Site> = Shared::new(|preload| Site::start(preload, &[]));

/// How the process ends that the test starts.
const WAYS: [&str; 3] = ["it returns", "it fails", "it is killed"];

/// Not a test: what the process does that the test starts.
#[test]
#[ignore = "a part of the test below"]
fn starts_a_cluster() {
    let site = SITES.alone(Preload::Neither);
    // Forgotten, so that the pooler is left to the guard as well.
    std::mem::forget(site.cluster.pooler("session", &[]));
    println!("data: {}", site.cluster.data().display());
    match std::env::var("WAY").as_deref() {
        Ok("it fails") => panic!("this failure is a part of the test"),
        Ok("it is killed") => send_signal("KILL", std::process::id()),
        _ => {}
    }
}

#[test]
fn a_cluster_ends_with_its_process() {
    for way in WAYS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "starts_a_cluster", "--nocapture"])
            .env("WAY", way)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), way == "it returns", "{way}: {said}");
        let data = said.lines().find_map(|line| line.split("data: ").nth(1)).expect("a folder");
        let folder = Path::new(data).parent().and_then(Path::parent).unwrap();
        wait_for(&format!("the end of everything, where {way}"), || {
            !folder.exists() && processes_of(folder).is_empty()
        });
    }
}

/// The command lines of processes that name the folder, or work in it.
fn processes_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let place = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let name = folder.to_string_lossy();
        (line.contains(&*name) || place.starts_with(folder)).then_some(line)
    });
    processes.collect()
}
