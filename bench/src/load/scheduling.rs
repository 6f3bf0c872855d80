//! How the threads of the load share processors with the service.

#[cfg(target_os = "linux")]
use rustix::process::{getpriority_process, setpriority_process};
#[cfg(target_os = "linux")]
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Keeps this thread from preempting others when it wakes (`SCHED_BATCH`), because clients on other machines
/// would not preempt the service either.
///
/// With the usual policy each answer wakes a waiting thread, which may take the processor from the service in
/// the middle of the next answers.
///
/// This works on Linux only. Without the permission nothing changes. The niceness stays the same, unless it
/// is below 0 and may not be set.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        let niceness = getpriority_process(None);
        let priority = NICENESS_ZERO.try_into().map(ThreadPriority::Crossplatform);
        debug_assert!(priority.is_ok());
        if let Ok(priority) = priority {
            let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
            let _ = set_thread_priority_and_policy(thread_native_id(), priority, batch);
        }
        // The library also sets a niceness with the policy.
        if let Ok(niceness) = niceness {
            let _ = setpriority_process(None, niceness);
        }
    }
}

/// The library's value of niceness 0. The library maps values from 0 to 99 to niceness from 19 to -20.
#[cfg(target_os = "linux")]
const NICENESS_ZERO: u8 = 48;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use thread_priority::thread_schedule_policy;

    #[test]
    fn a_thread_that_gives_way_keeps_its_niceness_and_others_keep_their_policy() {
        let before = thread_schedule_policy().unwrap();
        let giving_way = std::thread::spawn(|| {
            // A higher niceness needs no permission.
            let nicer = (getpriority_process(None).unwrap() + 7).min(19);
            setpriority_process(None, nicer).unwrap();
            give_way();
            (
                thread_schedule_policy().unwrap(),
                getpriority_process(None).unwrap() - nicer,
            )
        });
        assert_eq!(
            giving_way.join().unwrap(),
            (ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch), 0)
        );
        assert_eq!(thread_schedule_policy().unwrap(), before);
    }
}
