//! The standard metrics of a process, under the names that all clients of Prometheus use:
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.
//!
//! They are read from the system for each scrape. They are written here and not by the recorder, because
//! processor time has fractions and the recorder's counters are whole numbers. What a system does not report
//! is left out.

use std::fmt::Write;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Writes a metric without labels.
pub(super) fn write(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
    );
}

/// Writes all metrics of this process.
pub(super) fn write_all(text: &mut String) {
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            write(text, name, "gauge", help, value);
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let stat = stat.as_deref().and_then(Stat::parse);
    let memory = fs::read_to_string("/proc/self/statm").ok();
    let memory = memory.as_deref().and_then(pages).map(|pages| pages.map(bytes));
    gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        open_files(),
    );
    gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        Some(limit(Resource::Nofile)),
    );
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        memory.map(|[size, _]| size),
    );
    gauge(
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
        Some(limit(Resource::As)),
    );
    gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        memory.map(|[_, resident]| resident),
    );
    gauge(
        "process_start_time_seconds",
        "Start time of the process since the Unix epoch in seconds.",
        stat.as_ref()
            .and_then(|stat| *START_TIME.get_or_init(|| started_at(stat.started))),
    );
    gauge(
        "process_threads",
        "Number of threads of the process.",
        stat.map(|stat| stat.threads),
    );
    write(
        text,
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        processor_time().as_secs_f64(),
    );
}

/// The time at which this process started. It is computed once, because the clocks behind it have a
/// resolution of ten milliseconds, and an alert counts every change as a restart.
static START_TIME: OnceLock<Option<f64>> = OnceLock::new();

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // The time is positive, and has less than a second of nanoseconds.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn open_files() -> Option<f64> {
    // One of them is the directory itself.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

/// A limit of this process; the largest number if there is none, as other clients write it.
fn limit(resource: Resource) -> f64 {
    getrlimit(resource).current.unwrap_or(u64::MAX) as f64
}

fn bytes(pages: u64) -> f64 {
    (pages * page_size() as u64) as f64
}

/// The size and the resident part of the memory, in pages, from `/proc/self/statm`.
fn pages(statm: &str) -> Option<[u64; 2]> {
    let mut fields = statm.split_whitespace().map(str::parse);
    Some([fields.next()?.ok()?, fields.next()?.ok()?])
}

/// Returns the time at which this process started, which is this many seconds after the start of the system.
fn started_at(seconds: f64) -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(now.as_secs_f64() - (uptime - seconds))
}

/// Fields of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    threads: f64,
    /// In seconds after the start of the system.
    started: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in parentheses, may contain spaces and parentheses.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The manual counts from 1 and has two fields before these.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            threads: field(20)? as f64,
            started: field(22)? as f64 / clock_ticks_per_second() as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a metric.
    fn value(text: &str, name: &str) -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.expect(name).parse().expect(name)
    }

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let mut text = String::new();
        write_all(&mut text);
        let started = value(&text, "process_start_time_seconds");
        assert!(
            (begun.as_secs_f64() - 3_600.0..=begun.as_secs_f64() + 1.0).contains(&started),
            "{started}"
        );
        let resident = value(&text, "process_resident_memory_bytes");
        let size = value(&text, "process_virtual_memory_bytes");
        let size_max = value(&text, "process_virtual_memory_max_bytes");
        assert!(resident > 1e6 && resident < size && size <= size_max, "{text}");
        assert!(value(&text, "process_threads") >= 2.0);
        let files = value(&text, "process_open_fds");
        assert!(
            files >= 3.0 && files <= value(&text, "process_max_fds"),
            "{files}"
        );
    }

    #[test]
    fn processor_time_has_fractions_and_grows() {
        let before = processor_time();
        while processor_time() < before + Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        let mut text = String::new();
        write_all(&mut text);
        let seconds = value(&text, "process_cpu_seconds_total");
        assert!(
            seconds >= before.as_secs_f64() + 0.005 && seconds.fract() > 0.0,
            "{seconds}"
        );
    }

    #[test]
    fn a_program_may_have_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 23 17 1234 19";
        let stat = Stat::parse(&format!("42 (a) b (c) {rest}")).unwrap();
        let started = 1234.0 / clock_ticks_per_second() as f64;
        assert_eq!(
            stat,
            Stat {
                threads: 23.0,
                started
            }
        );
    }
}
