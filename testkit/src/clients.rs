//! Clients as they are: they ask again with the same key until they are answered. Beside them an
//! administrator who changes the coupons.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::JoinHandle;

use crate::recorder::HttpRecorder;

/// What the first of the two coupons begins with. The other has no limit.
pub const TOTAL: u64 = 1_000;

/// How long whoever has asked may take until an answer says what became of it, once there is nothing in its
/// way.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A number that somebody set, for the seed of a run or its length.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[derive(Clone)]
struct OneOfThem {
    client: Client,
    addresses: watch::Receiver<Vec<String>>,
    history: Arc<HttpRecorder>,
    coupons: [u64; 2],
    next: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    /// How long a client thinks between two requests.
    pace: Duration,
    /// Held during a change.
    desk: Arc<Mutex<()>>,
}

/// Clients and an administrator at work.
pub struct Clients {
    over: Arc<AtomicBool>,
    addresses: watch::Sender<Vec<String>>,
    desk: Arc<Mutex<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// So many clients begin to ask the processes at these addresses, whichever comes to their mind, for two
    /// coupons, one of [`TOTAL`] and one without a limit.
    pub fn begin(
        number: u64,
        pace: Duration,
        seed: u64,
        client: &Client,
        addresses: &[String],
        history: &Arc<HttpRecorder>,
        coupons: [u64; 2],
    ) -> Self {
        let (sender, addresses) = watch::channel(addresses.to_vec());
        let (next, over, desk) = (
            Arc::default(),
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(())),
        );
        let (client, history) = (client.clone(), Arc::clone(history));
        let one = OneOfThem {
            client,
            addresses,
            history,
            coupons,
            next,
            over: Arc::clone(&over),
            pace,
            desk: Arc::clone(&desk),
        };
        let ask = |number| {
            tokio::spawn(
                one.clone()
                    .ask_until_it_is_over(StdRng::seed_from_u64(seed ^ number)),
            )
        };
        let mut tasks: Vec<_> = (1..=number).map(ask).collect();
        tasks.push(tokio::spawn(
            one.change_until_it_is_over(StdRng::seed_from_u64(!seed)),
        ));
        Self {
            over,
            addresses: sender,
            desk,
            tasks,
        }
    }

    /// From now on they ask there.
    pub fn turn_to(&self, addresses: &[String]) {
        self.addresses.send_replace(addresses.to_vec());
    }

    /// Where they ask, for whoever keeps an eye on that.
    pub fn addresses(&self) -> watch::Sender<Vec<String>> {
        self.addresses.clone()
    }

    /// The administrator changes nothing until this is dropped.
    pub async fn without_changes(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.desk).lock_owned().await
    }

    /// Lets everybody come to an end: whoever has asked is answered.
    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.wait().await;
    }

    /// The same, with no change after [`Self::without_changes`].
    pub async fn end_without_changes(self, quiet: OwnedMutexGuard<()>) {
        self.over.store(true, Ordering::Relaxed);
        // The administrator waits for it, and finds that it is over.
        drop(quiet);
        self.wait().await;
    }

    async fn wait(self) {
        let all = async {
            for task in self.tasks {
                task.await.unwrap();
            }
        };
        tokio::time::timeout(ANSWERED_WITHIN, all)
            .await
            .expect("everybody is answered");
    }
}

impl OneOfThem {
    /// One client: asks for one coupon or the other, now and then as a user who has asked before.
    async fn ask_until_it_is_over(mut self, mut rng: StdRng) {
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let user = if rng.random_ratio(1, 5) {
                rng.random_range(0..=number)
            } else {
                number
            };
            let coupon = self.coupons[rng.random_range(0..2)];
            self.ask(
                &mut rng,
                coupon,
                &format!("user-{user}"),
                &format!("key-{number}"),
            )
            .await;
            if !self.pace.is_zero() {
                tokio::time::sleep(self.pace).await;
            }
        }
    }

    /// Asks with one key until there is an answer that says what became of it.
    async fn ask(&mut self, rng: &mut StdRng, coupon: u64, user: &str, key: &str) {
        loop {
            let address = self.somewhere(rng);
            match self
                .history
                .issue(&self.client, &address, coupon, user, key)
                .await
            {
                Some((status, _)) if status != 503 => return,
                // The process is gone, or says that it does not know: asked again when there is another, or
                // in a moment.
                _ => drop(tokio::time::timeout(Duration::from_millis(50), self.addresses.changed()).await),
            }
        }
    }

    /// One of the addresses.
    fn somewhere(&mut self, rng: &mut StdRng) -> String {
        let addresses = self.addresses.borrow_and_update();
        addresses[rng.random_range(0..addresses.len())].clone()
    }

    /// The administrator: pauses, resumes, and puts more on offer. Always of the first coupon: the other
    /// stays open, so that whoever asks for it is given it as long as anybody decides.
    async fn change_until_it_is_over(mut self, mut rng: StdRng) {
        let mut total = TOTAL;
        while !self.over.load(Ordering::Relaxed) {
            let coupon = self.coupons[0];
            let change = match rng.random_range(0..4) {
                0 => json!("pause"),
                1 | 2 => json!("resume"),
                _ => {
                    total += rng.random_range(0..500);
                    json!({"patch": {"total_quantity": total}})
                }
            };
            let address = self.somewhere(&mut rng);
            let at_the_desk = self.desk.lock().await;
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            self.history.change(&self.client, &address, coupon, change).await;
            drop(at_the_desk);
            let _ = tokio::time::timeout(
                Duration::from_millis(rng.random_range(1..40)),
                self.addresses.changed(),
            )
            .await;
        }
    }
}
