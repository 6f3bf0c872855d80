//! The HTTP side: which path leads where. Handlers live in one file a resource below; `problem` knows every
//! way to say no.
//!
//! Paths are matched first and methods in the handler, so that an unknown path is 404 and a wrong method 405.
//! A handler always answers: rejections are for paths alone.

mod cluster;
pub(crate) mod coupons;
mod docs;
pub(crate) mod issuances;
mod openapi;
mod operations;

use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::engine::{Engine, NotReady};
use actors::ids::NodeId;
use actors::owning::admission::Admission;
use actors::owning::message::{Change, Setback};
use actors::store::{self, StoreError};
use futures_util::FutureExt;
use http::header::HeaderName;
use http::{HeaderValue, Method};
use smallvec::SmallVec;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::config::Config;
use crate::http::call::{Call, call};
use crate::http::problem::Problem;
use crate::http::route::Route;
use crate::service::auth::Recogniser;
use crate::service::coupon_copies::Copies;
use crate::service::user_limit::UserLimit;

/// Most reads and creations that a node asks of its store at the same time: what four connections do, at two
/// milliseconds each, in the two seconds for which one is waited for. More are refused at once.
const STORE_CALLS_MAX: usize = 4_096;

/// What a handler comes to.
type Answer = Result<Response, Problem>;

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct App {
    node: NodeId,
    recogniser: Recogniser,
    user_limit: Option<UserLimit>,
    deadline: Duration,
    change_deadline: Duration,
    engine: OnceLock<RunningEngine>,
    copies: Copies,
    /// Places for [`STORE_CALLS_MAX`].
    pub(crate) store_calls: Admission,
}

/// The engine, once it runs.
struct RunningEngine(Engine);

impl fmt::Debug for RunningEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl App {
    /// An app whose engine does not run yet.
    pub(crate) fn new(node: NodeId, recogniser: Recogniser, config: &Config) -> Self {
        Self {
            node,
            recogniser,
            user_limit: UserLimit::new(&config.limits),
            deadline: config.http.deadline,
            change_deadline: config.http.change_deadline,
            engine: OnceLock::new(),
            copies: Copies::default(),
            store_calls: Admission::new(STORE_CALLS_MAX),
        }
    }

    /// From now on requests reach this engine. Only the first call counts.
    pub(crate) fn started(&self, engine: Engine) {
        let _ = self.engine.set(RunningEngine(engine));
    }

    /// Follows what changes by itself (keys, and who asked how much) for as long as it is polled.
    pub(crate) async fn upkeep(&self) {
        let forget = async {
            if let Some(limit) = &self.user_limit {
                limit.forget_idle().await;
            }
        };
        tokio::join!(self.recogniser.follow_keys(), forget);
    }

    /// The engine; before it runs there is nothing to ask.
    pub(crate) fn engine(&self) -> Result<&Engine, Problem> {
        self.engine
            .get()
            .map(|running| &running.0)
            .ok_or(Problem::SetBack(Setback::StoreUnavailable))
    }

    fn not_ready(&self) -> Vec<NotReady> {
        self.engine
            .get()
            .map_or_else(|| vec![NotReady::Starting], |running| running.0.not_ready())
    }

    /// Reads from the store, within the deadline.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        reading: impl Future<Output = store::Result<T>> + Send + 'static,
    ) -> Result<T, Problem> {
        self.read_with_others(taking_a_place(self.store_calls.clone(), reading))
            .await
    }

    /// The same for a read that others may share, and its failure with it. It takes one place for all of
    /// them: [`taking_a_place`].
    pub(crate) async fn read_with_others<T>(
        &self,
        reading: impl Future<Output = Result<T, NotDone>>,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(self.deadline, reading).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(NotDone::NoPlace)) => Err(Problem::SetBack(Setback::Overloaded)),
            Ok(Err(NotDone::Failed(error))) => {
                tracing::warn!(%error, "a read failed");
                Err(Problem::reading(&error))
            }
            Err(_) => Err(Problem::SetBack(Setback::StoreUnavailable)),
        }
    }
}

/// Why a call to the store came to nothing; shared by all who waited for it.
#[derive(Debug, Clone)]
pub(crate) enum NotDone {
    /// As many calls as there may be are under way.
    NoPlace,
    /// The store did not do it.
    Failed(Arc<StoreError>),
}

/// A call to the store, in one of these places.
///
/// Cancel safety: once begun it goes on in a task of its own, and has its place until it ends, as the store
/// goes on with it too. Were the place given back when nobody waits any more, short deadlines would let any
/// number wait for a silent database.
pub(crate) async fn taking_a_place<T: Send + 'static>(
    places: Admission,
    calling: impl Future<Output = store::Result<T>> + Send + 'static,
) -> Result<T, NotDone> {
    let place = places.admit().map_err(|_full| NotDone::NoPlace)?;
    let called = tokio::spawn(async move {
        let _place = place;
        calling.await
    });
    let done = called
        .await
        .unwrap_or_else(|panicked| Err(StoreError::Unknown(panicked.to_string())));
    done.map_err(|error| NotDone::Failed(Arc::new(error)))
}

/// All routes. The hot one is first, and not behind a boxed filter.
pub(crate) fn routes(
    app: Arc<App>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let issue = {
        let app = Arc::clone(&app);
        warp::path!("v1" / "coupons" / String / "issuances")
            .and(call())
            .then(move |id: String, call: Call| {
                let app = Arc::clone(&app);
                // Boxed, as the filters around it and the connection move it several times.
                async move {
                    answer(
                        Route::CouponIssuances,
                        &call,
                        issuances::of_coupon(&app, &id, &call).await,
                    )
                }
                .boxed()
            })
    };
    let routes = issue.or(other_routes(Arc::clone(&app))).unify();
    routes
        .recover(|_: Rejection| async { Ok::<_, Infallible>(Problem::NotFound.into_response()) })
        .unify()
}

/// Every route but the hot one.
fn other_routes(app: Arc<App>) -> warp::filters::BoxedFilter<(Response,)> {
    let with_app = warp::any().map(move || Arc::clone(&app));
    let coupons = coupon_routes(&with_app);
    let mine = warp::path!("v1" / "me" / "issuances")
        .and(call())
        .and(with_app.clone())
        .then(|call: Call, app: Arc<App>| async move {
            answer(Route::MyIssuances, &call, issuances::mine(&app, &call).await)
        });
    let issuance = warp::path!("v1" / "issuances" / String)
        .and(call())
        .and(with_app.clone())
        .then(|id: String, call: Call, app: Arc<App>| async move {
            answer(Route::Issuance, &call, issuances::one(&app, &id, &call).await)
        });
    let cluster = warp::path!("v1" / "cluster")
        .and(call())
        .and(with_app.clone())
        .then(|call: Call, app: Arc<App>| async move {
            answer(Route::Cluster, &call, cluster::all(&app, &call).await)
        });
    let cluster_coupon = warp::path!("v1" / "cluster" / "coupons" / String)
        .and(call())
        .and(with_app.clone())
        .then(|id: String, call: Call, app: Arc<App>| async move {
            answer(
                Route::ClusterCoupon,
                &call,
                cluster::coupon(&app, &id, &call).await,
            )
        });
    let livez = warp::path!("livez")
        .and(call())
        .map(|call: Call| answer(Route::Livez, &call, operations::livez(&call)));
    let readyz = warp::path!("readyz")
        .and(call())
        .and(with_app)
        .map(|call: Call, app: Arc<App>| answer(Route::Readyz, &call, operations::readyz(&app, &call)));
    let metrics = warp::path!("metrics")
        .and(call())
        .map(|call: Call| answer(Route::Metrics, &call, operations::metrics(&call)));
    let openapi = warp::path!("openapi.json")
        .and(call())
        .map(|call: Call| answer(Route::OpenApi, &call, openapi::document(&call)));
    let docs = warp::path!("docs")
        .and(warp::path::full())
        .and(call())
        .map(|path: FullPath, call: Call| answer(Route::Docs, &call, docs::page(path.as_str(), &call)));
    let docs_file = warp::path!("docs" / String)
        .and(call())
        .map(|name: String, call: Call| answer(Route::DocsFile, &call, docs::file(&name, &call)));
    coupons
        .or(mine.boxed())
        .unify()
        .or(issuance.boxed())
        .unify()
        .or(cluster.boxed())
        .unify()
        .or(cluster_coupon.boxed())
        .unify()
        .or(livez.boxed())
        .unify()
        .or(readyz.boxed())
        .unify()
        .or(metrics.boxed())
        .unify()
        .or(openapi.boxed())
        .unify()
        .or(docs.boxed())
        .unify()
        .or(docs_file.boxed())
        .unify()
        .boxed()
}

/// The routes of coupons.
fn coupon_routes<A>(with_app: &A) -> warp::filters::BoxedFilter<(Response,)>
where
    A: Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + Send + Sync + 'static,
{
    let coupons = warp::path!("v1" / "coupons")
        .and(call())
        .and(with_app.clone())
        .then(|call: Call, app: Arc<App>| async move {
            answer(Route::Coupons, &call, coupons::all(&app, &call).await)
        });
    let coupon = warp::path!("v1" / "coupons" / String)
        .and(call())
        .and(with_app.clone())
        .then(|id: String, call: Call, app: Arc<App>| async move {
            answer(Route::Coupon, &call, coupons::one(&app, &id, &call).await)
        });
    let status = |name: &'static str, route: Route, change: Change| {
        let call = warp::path!("v1" / "coupons" / String / ..)
            .and(warp::path(name))
            .and(warp::path::end())
            .and(call());
        call.and(with_app.clone())
            .then(move |id: String, call: Call, app: Arc<App>| {
                let change = change.clone();
                async move {
                    answer(
                        route,
                        &call,
                        coupons::change_status(&app, &id, &call, change).await,
                    )
                }
            })
    };
    let pause = status("pause", Route::CouponPause, Change::Pause);
    let resume = status("resume", Route::CouponResume, Change::Resume);
    let close = status("close", Route::CouponClose, Change::Close);
    coupons
        .boxed()
        .or(coupon.boxed())
        .unify()
        .or(pause.boxed())
        .unify()
        .or(resume.boxed())
        .unify()
        .or(close.boxed())
        .unify()
        .boxed()
}

/// The response, and a note of the route for the listener.
fn answer(route: Route, call: &Call, answer: Answer) -> Response {
    call.head.matched(route);
    answer.unwrap_or_else(Problem::into_response)
}

/// Passes for requests that only read.
fn only_reads(call: &Call) -> Result<(), Problem> {
    if matches!(call.head.method, Method::GET | Method::HEAD) {
        Ok(())
    } else {
        Err(Problem::MethodNotAllowed("GET, HEAD"))
    }
}

/// Sets a header to a text of ours.
fn set_header(response: &mut Response, name: HeaderName, value: fmt::Arguments<'_>) {
    // The longest is an issuance's path, with two numbers.
    let mut text = SmallVec::<[u8; 64]>::new();
    // Ids and versions are ASCII, which is what a header value must be.
    if let (Ok(()), Ok(value)) = (text.write_fmt(value), HeaderValue::from_bytes(&text)) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listener::{self, Listener};
    use crate::service::auth;
    use actors::engine;
    use actors::store::sqlite::{self, SqliteStore};
    use serde_json::{Value, json};
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn calls_to_the_store_beyond_the_most_are_refused_until_one_ends() {
        let config = Config::default();
        let recogniser = Recogniser::new(
            &secrecy::SecretString::from("token"),
            auth::Users::new(&config.auth).unwrap(),
        );
        let app = Arc::new(App::new(NodeId::random(), recogniser, &config));
        let (answer, answered) = tokio::sync::watch::channel(false);
        let silent = |_| {
            let (app, mut answered) = (Arc::clone(&app), answered.clone());
            let reading = async move {
                answered
                    .wait_for(|answered| *answered)
                    .await
                    .map(drop)
                    .map_err(|_| unreachable!())
            };
            tokio::spawn(async move { app.read(reading).await })
        };
        let waiting: Vec<_> = (0..STORE_CALLS_MAX).map(silent).collect();
        let taken = async {
            while app.store_calls.taken() < STORE_CALLS_MAX {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(config.http.deadline / 2, taken)
            .await
            .expect("each takes a place");
        assert!(matches!(
            app.read(async { Ok(()) }).await,
            Err(Problem::SetBack(Setback::Overloaded))
        ));
        let shared = taking_a_place(app.store_calls.clone(), async { Ok(()) });
        assert!(matches!(
            app.read_with_others(shared).await,
            Err(Problem::SetBack(Setback::Overloaded))
        ));
        answer.send_replace(true);
        for waiting in waiting {
            assert!(waiting.await.unwrap().is_ok());
        }
        assert!(app.read(async { Ok(()) }).await.is_ok());
        assert!(
            taking_a_place(app.store_calls.clone(), async { Ok(()) })
                .await
                .is_ok()
        );
        assert_eq!(app.store_calls.taken(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_calls_the_store_is_refused_while_there_is_no_place() {
        let (config, folder) = (Config::default(), tempfile::tempdir().unwrap());
        let options = engine::Options {
            node: NodeId::random(),
            http: String::new(),
            lease: config.cluster.lease,
            beat: config.cluster.beat,
            idle: Duration::from_secs(300),
            requests_max: config.http.requests_max,
            coupon_requests_max: config.http.coupon_requests_max,
            lanes: 1,
            cluster: None,
        };
        let store = SqliteStore::open(&sqlite::Options::new(folder.path().join("test.db")))
            .await
            .unwrap();
        let recogniser = Recogniser::new(
            &secrecy::SecretString::from("token"),
            auth::Users::new(&config.auth).unwrap(),
        );
        let app = Arc::new(App::new(options.node.clone(), recogniser, &config));
        app.started(Engine::start(options, Arc::new(store)).await.unwrap());
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let listener =
            Listener::serve(socket, routes(Arc::clone(&app)), listener::Options::default()).unwrap();
        let places: Vec<_> = (0..STORE_CALLS_MAX)
            .map(|_| app.store_calls.admit().unwrap())
            .collect();
        let client = reqwest::Client::new();
        let ask = async |request: reqwest::RequestBuilder| {
            let response = request
                .bearer_auth("token")
                .header("X-User-Id", "alice")
                .send()
                .await
                .unwrap();
            (
                response.status().as_u16(),
                response.json::<Value>().await.unwrap(),
            )
        };
        for path in [
            "coupons",
            "coupons?cursor=Y291cG9uczo1",
            "coupons/1",
            "coupons/1/issuances",
            "me/issuances",
            "issuances/1-1",
            "cluster",
            "cluster/coupons/1",
        ] {
            let (status, body) = ask(client.get(format!("http://{}/v1/{path}", listener.address()))).await;
            assert_eq!(
                (status, &body["code"], &body["applied"]),
                (503, &json!("OVERLOADED"), &json!(false)),
                "{path}"
            );
        }
        let create = || {
            client
                .post(format!("http://{}/v1/coupons", listener.address()))
                .json(&json!({"title": "T"}))
        };
        let (status, body) = ask(create()).await;
        assert_eq!(
            (status, &body["code"], &body["applied"]),
            (503, &json!("OVERLOADED"), &json!(false))
        );
        drop(places);
        assert_eq!(ask(create()).await.0, 201);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_has_its_place_until_it_ends() {
        let mut config = Config::default();
        config.http.deadline = Duration::from_millis(10);
        let recogniser = Recogniser::new(
            &secrecy::SecretString::from("token"),
            auth::Users::new(&config.auth).unwrap(),
        );
        let app = App::new(NodeId::random(), recogniser, &config);
        let (answer, mut answered) = tokio::sync::watch::channel(false);
        let silent = async move {
            answered
                .wait_for(|answered| *answered)
                .await
                .map(drop)
                .map_err(|_| unreachable!())
        };
        let told = tokio::time::timeout(Duration::from_secs(10), app.read(silent))
            .await
            .expect("nobody waits beyond the deadline");
        assert!(matches!(told, Err(Problem::SetBack(Setback::StoreUnavailable))));
        assert_eq!(app.store_calls.taken(), 1, "the store is still at it");
        answer.send_replace(true);
        while app.store_calls.taken() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_node_that_starts_is_alive_and_answers_that_it_cannot_serve() {
        let config = Config::default();
        let recogniser = Recogniser::new(
            &secrecy::SecretString::from("token"),
            auth::Users::new(&config.auth).unwrap(),
        );
        let app = App::new(NodeId::random(), recogniser, &config);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let listener = Listener::serve(socket, routes(Arc::new(app)), listener::Options::default()).unwrap();
        let get = async |path: &str| {
            let request = reqwest::Client::new().get(format!("http://{}{path}", listener.address()));
            let response = request
                .bearer_auth("token")
                .header("X-User-Id", "alice")
                .send()
                .await
                .unwrap();
            (
                response.status().as_u16(),
                response.json::<Value>().await.unwrap(),
            )
        };
        assert_eq!(get("/livez").await.0, 200);
        assert_eq!(
            get("/readyz").await,
            (503, json!({"ready": false, "reasons": ["starting"]}))
        );
        for path in [
            "/v1/coupons",
            "/v1/coupons/1",
            "/v1/coupons/1/issuances",
            "/v1/me/issuances",
            "/v1/issuances/1-1",
            "/v1/cluster",
        ] {
            let (status, body) = get(path).await;
            assert_eq!(
                (status, &body["code"], &body["applied"]),
                (503, &json!("STORE_UNAVAILABLE"), &json!(false)),
                "{path}"
            );
        }
        assert_eq!(get("/v1/coupons/x").await.0, 400);
    }
}
