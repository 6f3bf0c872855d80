use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> (Spawn, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder.path());
    (Spawn::new(command, folder.path().join("log")), folder)
}

fn runs(id: u32) -> bool {
    // A process that was not waited for yet is still listed, as a zombie.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn lines_are_read_up_to_the_expected_one() {
    let (spawn, _folder) = shell("echo one; echo at http://127.0.0.1:80; echo two; exec sleep 60");
    let process = spawn.start().unwrap();
    let lines = process.lines_until(LIMIT, |line| line.contains("http")).unwrap();
    assert_eq!(lines, ["one", "at http://127.0.0.1:80"]);
    assert_eq!(process.address(LIMIT).unwrap(), "127.0.0.1:80");
    assert!(process.has_printed(|line| line == "one") && !process.has_printed(|line| line == "three"));
}

#[test]
fn a_process_that_ends_before_the_expected_line_shows_its_log() {
    let (spawn, _folder) = shell("echo cannot bind >&2; exit 3");
    let process = spawn.start().unwrap();
    let error = process.lines_until(LIMIT, |line| line == "ready").unwrap_err();
    assert_eq!(error, "its output ended before the expected line\ncannot bind");
    assert_eq!(process.wait(LIMIT).unwrap().unwrap().code(), Some(3));
}

#[test]
fn a_process_that_is_too_slow_is_an_error() {
    let (spawn, _folder) = shell("exec sleep 60");
    let process = spawn.start().unwrap();
    let limit = Duration::from_millis(20);
    let error = process.lines_until(limit, |line| line == "ready").unwrap_err();
    assert_eq!(error, "20ms passed before the expected line\n");
    assert_eq!(process.wait(limit).unwrap(), None);
}

#[test]
fn a_signal_reaches_the_process() {
    let (spawn, _folder) = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    let process = spawn.start().unwrap();
    process.lines_until(LIMIT, |line| line == "ready").unwrap();
    process.signal(Signal::TERM).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap().unwrap().code(), Some(7));
    // The process has ended, and a further signal is no error.
    process.signal(Signal::TERM).unwrap();
}

#[test]
fn a_process_reads_lines_and_each_line_that_it_prints_is_reported() {
    let (spawn, _folder) = shell("while read -r line; do echo \"<$line>\"; done");
    let (sender, seen) = std::sync::mpsc::channel();
    let process = spawn
        .with_input()
        .start_with(move |line| sender.send(line.to_owned()).unwrap())
        .unwrap();
    process.write_line("one").unwrap();
    assert_eq!(seen.recv_timeout(LIMIT).unwrap(), "<one>");
    process.kill();
    assert!(
        seen.recv_timeout(LIMIT).is_err(),
        "the sender is dropped with the output"
    );
}

#[test]
fn a_process_ends_when_it_is_dropped() {
    let (spawn, _folder) = shell("exec sleep 60");
    let process = spawn.start().unwrap();
    let id = process.id();
    assert!(runs(id));
    drop(process);
    assert!(!runs(id));
}

#[test]
fn a_process_whose_parent_is_gone_gets_its_signal_and_its_directory_is_removed() {
    let (spawn, folder) = shell("exec sleep 60");
    let process = spawn.orphan_directory(folder.path()).start().unwrap();
    // The guard takes this for the end of this program.
    drop(process.state().guard.take().unwrap().input);
    let begun = Instant::now();
    while folder.path().exists() {
        // Reaps the process, as the system does once this program is gone.
        let _ = process.status();
        assert!(begun.elapsed() < LIMIT, "the guard does nothing");
        thread::sleep(INTERVAL);
    }
    assert!(!runs(process.id()));
}

#[test]
fn settings_of_the_environment_are_removed() {
    // More cannot be tested without changing the environment of this program.
    let mut command = Command::new("true");
    let removed = without_settings(&mut command).get_envs();
    assert!(
        removed
            .into_iter()
            .all(|(key, value)| { key.to_string_lossy().starts_with("FIRSTCOME__") && value.is_none() })
    );
}
