//! Database work that runs to its end even if its caller is dropped.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::{Result, StoreError};

/// Runs work in its caller's task. If the caller is dropped, the work continues in a task of its own, because
/// a statement that is interrupted would leave its connection in an unknown state. If the work panics, the
/// outcome is unknown.
///
/// Spawning a task at once would also work, but would cost two more wake-ups.
pub(crate) async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let panicked = |_| Err(StoreError::Unknown("the call panicked".to_owned()));
    Uninterrupted(Some(AssertUnwindSafe(work).catch_unwind().boxed()))
        .await
        .unwrap_or_else(panicked)
}

struct Uninterrupted<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Future for Uninterrupted<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.0 else {
            return Poll::Pending;
        };
        let output = std::task::ready!(work.poll_unpin(context));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for Uninterrupted<T> {
    fn drop(&mut self) {
        // If there is no runtime, the process is ending, and the connection ends with it.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_its_caller_is_dropped() {
        let (go, wait) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let work = uninterrupted(async move {
            wait.await
                .map_err(|_| StoreError::NotStored("cut off".to_owned()))?;
            done.send(())
                .map_err(|()| StoreError::NotStored("the receiver was dropped".to_owned()))
        });
        assert!(timeout(Duration::from_millis(1), work).await.is_err());
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_leaves_the_outcome_unknown() {
        async fn broken() -> Result<()> {
            panic!("on purpose")
        }
        assert!(matches!(
            uninterrupted(broken()).await,
            Err(StoreError::Unknown(_))
        ));
    }
}
