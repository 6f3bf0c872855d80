//! Clients that retry a request with the same key until they get a definite answer, and an administrator who
//! changes the coupons meanwhile. What some of them were issued is used for orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::json;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio::task::JoinHandle;

use crate::recorder::HttpRecorder;

mod checkout;

use checkout::{Paid, Pool, Scarce};

/// The initial quantity of the first coupon. The second coupon has no limit.
pub const TOTAL: u64 = 1_000;

/// The quantity of the third coupon: so few that they are soon given out, and then only what is given back is
/// issued.
pub const FEW: u64 = 20;

/// How long a request may take to get a definite answer once the faults are over.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Reads a number from the environment, such as the seed or the length of a run.
///
/// # Panics
/// If the variable is set to something else.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// While this exists, no coupon is changed and no issuance is used.
pub type Quiet = OwnedRwLockWriteGuard<()>;

#[derive(Clone)]
struct ClientTask {
    client: Client,
    addresses: watch::Receiver<Vec<String>>,
    history: Arc<HttpRecorder>,
    coupons: [u64; 3],
    next: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    /// Time between two requests of a client.
    pace: Duration,
    /// The administrator reads this lock during a change, and a client during an order.
    changing: Arc<RwLock<()>>,
    pool: Arc<Pool>,
    scarce: Arc<Scarce>,
    paid: Paid,
}

/// Clients and an administrator that send requests until they are ended.
pub struct Clients {
    over: Arc<AtomicBool>,
    addresses: watch::Sender<Vec<String>>,
    changing: Arc<RwLock<()>>,
    scarce: Arc<Scarce>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Makes the coupons of [`Self::begin`].
    ///
    /// # Panics
    /// If a coupon is not made.
    pub async fn coupons(client: &Client, address: &str, history: &HttpRecorder) -> [u64; 3] {
        let [first, second, third] = checkout::offers();
        [
            history.create_like(client, address, &first).await,
            history.create_like(client, address, &second).await,
            history.create_like(client, address, &third).await,
        ]
    }

    /// Starts this many clients. Each request goes to a random one of these addresses, and asks for a random
    /// one of the three coupons, less often for the third one. The quantity of the first coupon is [`TOTAL`],
    /// and that of the third one [`FEW`]; the second coupon has no limit.
    pub fn begin(
        number: u64,
        pace: Duration,
        seed: u64,
        client: &Client,
        addresses: &[String],
        history: &Arc<HttpRecorder>,
        coupons: [u64; 3],
    ) -> Self {
        let (sender, addresses) = watch::channel(addresses.to_vec());
        let (next, scarce, over, changing) = (
            Arc::default(),
            Arc::<Scarce>::default(),
            Arc::new(AtomicBool::new(false)),
            Arc::new(RwLock::new(())),
        );
        let (client, history) = (client.clone(), Arc::clone(history));
        let one = ClientTask {
            client,
            addresses,
            history,
            coupons,
            next,
            over: Arc::clone(&over),
            pace,
            changing: Arc::clone(&changing),
            pool: Arc::default(),
            scarce: Arc::clone(&scarce),
            paid: Paid::new(),
        };
        let client_task = |number| {
            tokio::spawn(
                one.clone()
                    .request_until_over(StdRng::seed_from_u64(seed ^ number)),
            )
        };
        let mut tasks: Vec<_> = (1..=number).map(client_task).collect();
        tasks.push(tokio::spawn(one.change_until_over(StdRng::seed_from_u64(!seed))));
        Self {
            over,
            addresses: sender,
            changing,
            scarce,
            tasks,
        }
    }

    /// Changes the addresses that requests are sent to.
    pub fn turn_to(&self, addresses: &[String]) {
        self.addresses.send_replace(addresses.to_vec());
    }

    /// Returns the sender with which a load balancer changes the addresses.
    pub fn addresses(&self) -> watch::Sender<Vec<String>> {
        self.addresses.clone()
    }

    /// Returns how many of the third coupon were issued beyond its quantity, because others were given back.
    pub fn issued_again(&self) -> u64 {
        self.scarce.issued().saturating_sub(FEW)
    }

    /// Keeps the administrator from changing anything, and clients from using what they were issued, until
    /// the guard is dropped.
    pub async fn without_changes(&self) -> Quiet {
        Arc::clone(&self.changing).write_owned().await
    }

    /// Sends no new requests, and waits until every request that was sent has a definite answer.
    ///
    /// # Panics
    /// If a request has no definite answer in time.
    pub async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.wait().await;
    }

    /// Ends the clients like [`Self::end`]. The administrator changes nothing more. `quiet` is the guard of
    /// [`Self::without_changes`].
    ///
    /// # Panics
    /// If a request has no definite answer in time.
    pub async fn end_without_changes(self, quiet: Quiet) {
        self.over.store(true, Ordering::Relaxed);
        // The administrator waits for the guard, and then finds that the run is over.
        drop(quiet);
        self.wait().await;
    }

    async fn wait(self) {
        let all = async {
            for task in self.tasks {
                task.await.expect("a client does not panic");
            }
        };
        tokio::time::timeout(ANSWERED_WITHIN, all)
            .await
            .expect("every request gets a definite answer");
    }
}

impl ClientTask {
    /// Requests one coupon or the other, sometimes for an earlier user, and sometimes uses an issuance.
    async fn request_until_over(mut self, mut rng: StdRng) {
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let user = if rng.random_ratio(1, 5) {
                rng.random_range(0..=number)
            } else {
                number
            };
            if rng.random_ratio(1, 5)
                && let Ok(_unquiet) = Arc::clone(&self.changing).try_read_owned()
            {
                self.check_out(&mut rng, number).await;
            }
            let coupon = match rng.random_range(0..8) {
                0 => self.coupons[2],
                other => self.coupons[other % 2],
            };
            self.request(
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

    /// Sends a request, and sends it again with the same key until there is a definite answer.
    async fn request(&mut self, rng: &mut StdRng, coupon: u64, user: &str, key: &str) {
        loop {
            let address = self.any_address(rng);
            match self
                .history
                .issue(&self.client, &address, coupon, user, key)
                .await
            {
                Some((status, body)) if status != 503 => {
                    match body["id"].as_str() {
                        Some(id) if coupon == self.coupons[2] => self.scarce.add(id),
                        Some(id) => self.pool.add(id),
                        None => {}
                    }
                    return;
                }
                _ => self.wait_a_little().await,
            }
        }
    }

    /// Waits before a request is sent again, because the node is gone or does not know the outcome. Returns
    /// sooner when the addresses change.
    async fn wait_a_little(&mut self) {
        let _ = tokio::time::timeout(Duration::from_millis(50), self.addresses.changed()).await;
    }

    /// Returns a random address.
    fn any_address(&mut self, rng: &mut StdRng) -> String {
        let addresses = self.addresses.borrow_and_update();
        addresses[rng.random_range(0..addresses.len())].clone()
    }

    /// Pauses and resumes the first coupon, raises its quantity and changes what it takes off. The second
    /// coupon stays open, so that requests for it succeed as long as an owner decides. Of the third coupon,
    /// issuances are given back to the quantity.
    async fn change_until_over(mut self, mut rng: StdRng) {
        let mut total = TOTAL;
        while !self.over.load(Ordering::Relaxed) {
            let coupon = self.coupons[0];
            let change = match rng.random_range(0..6) {
                0 => Some(json!("pause")),
                1 | 2 => Some(json!("resume")),
                3 => Some(json!({"patch": checkout::other_discount(&mut rng)})),
                4 => {
                    total += rng.random_range(0..500);
                    Some(json!({"patch": {"total_quantity": total}}))
                }
                _ => None,
            };
            let address = self.any_address(&mut rng);
            let changing = Arc::clone(&self.changing).read_owned().await;
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            match change {
                Some(change) => drop(self.history.change(&self.client, &address, coupon, change).await),
                None => self.give_back(&mut rng).await,
            }
            drop(changing);
            let _ = tokio::time::timeout(
                Duration::from_millis(rng.random_range(1..40)),
                self.addresses.changed(),
            )
            .await;
        }
    }
}
