//! The number of connections that the system allows: each is an open file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::refuse::REFUSALS_MAX;

/// Open files that are not HTTP connections: the database, links, logs, and files of libraries.
const OTHER_FILES: u64 = 256;

/// Raises this process's limit of open files as far as the system allows. Returns the number of connections
/// for which there is room then, at most `wanted`.
pub(super) fn make_room(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
    let limit = getrlimit(Resource::Nofile).current;
    let fit = fit(wanted, limit);
    if fit < wanted {
        tracing::warn!(
            open_files_max = limit,
            connections_max = wanted,
            fit,
            "http.connections_max exceeds the limit of open files (ulimit -n); serving fewer connections"
        );
    }
    fit
}

/// Returns the number of connections for which a limit of open files has room: at least one, and at most
/// `wanted`. `None` means that there is no limit.
fn fit(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit.saturating_sub(OTHER_FILES + REFUSALS_MAX as u64).max(1);
    usize::try_from(room).map_or(wanted, |room| room.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(fit(1000, None), 1000);
        assert_eq!(fit(1000, Some(100_000)), 1000);
        assert_eq!(fit(1000, Some(1024)), 1024 - 256 - REFUSALS_MAX);
        assert_eq!(fit(1000, Some(10)), 1);
    }
}
