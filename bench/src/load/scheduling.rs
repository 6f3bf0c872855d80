//! How the threads that ask share processors with what they ask.

#[cfg(target_os = "linux")]
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id};

/// Keeps this thread from interrupting others when it wakes (`SCHED_BATCH`), as clients on machines of their own interrupt nobody there.
///
/// With the usual policy each answer wakes the thread that waits for it, and takes the processor from the service in the middle of the next ones: on a
/// machine of two processors that is a switch for every third answer. For closed loops only: whoever must send when it is time has to be woken then.
///
/// Best effort: where the system refuses, figures are those of the usual policy.
pub(super) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        if let Ok(usual) = USUAL.try_into() {
            // The policy is set before the niceness, which somebody who was started with another one may not lower again.
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(usual), batch);
        }
    }
}

/// What the library calls a niceness of 0.
#[cfg(target_os = "linux")]
const USUAL: u8 = 48;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use thread_priority::thread_schedule_policy;

    #[test]
    fn a_thread_gives_way_and_no_other_does() {
        let usual = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        let before = thread_schedule_policy().unwrap();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let giving_way = std::thread::spawn(move || {
            let before = niceness();
            give_way();
            (thread_schedule_policy().unwrap(), niceness() == before)
        });
        assert_eq!((before, giving_way.join().unwrap(), thread_schedule_policy().unwrap()), (usual, (batch, true), usual));
    }
}
