//! Tests on each kind of database server.

/// Makes a test for each function and each kind of server, in modules `on_mysql` and `on_mariadb`. A test is
/// skipped where there is no such server
/// ([`ServerKind::is_available`](crate::servers::ServerKind::is_available)).
///
/// Names alone are those of functions `async fn(ServerKind)` in the module that calls the macro:
///
/// ```ignore
/// on_each_server! { a_batch_is_stored a_fenced_batch_is_not }
/// ```
///
/// Names in a group are those of functions in another module of the crate. With `holding(guard)`, the result
/// of `guard(kind).await` is held while the test runs. With `given(setup)`, the test gets the result of
/// `setup(kind).await` in place of the kind. Paths begin with `crate`.
///
/// ```ignore
/// on_each_server! {
///     holding(crate::alone) locks { a_claim_waits_for_a_batch }
///     given(crate::cluster::Cluster::new) moves { a_stopped_node_hands_its_shards_off }
/// }
/// ```
#[allow(clippy::crate_in_macro_def, reason = "the modules are those of the tests")]
#[macro_export]
macro_rules! on_each_server {
    (@kind $kind:ident $($how:ident($with:path) $module:ident { $($test:ident)* })+) => {
        $($($crate::on_each_server! { @test $kind $how($with) $module $test })*)+
    };
    (@kind $kind:ident $($test:ident)*) => {
        $($crate::on_each_server! { @test $kind $test })*
    };
    (@test $kind:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if $crate::servers::ServerKind::$kind.is_available() {
                super::$test($crate::servers::ServerKind::$kind).await;
            }
        }
    };
    (@test $kind:ident holding($guard:path) $module:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if $crate::servers::ServerKind::$kind.is_available() {
                let _held = $guard($crate::servers::ServerKind::$kind).await;
                crate::$module::$test($crate::servers::ServerKind::$kind).await;
            }
        }
    };
    (@test $kind:ident given($setup:path) $module:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if $crate::servers::ServerKind::$kind.is_available() {
                crate::$module::$test($setup($crate::servers::ServerKind::$kind).await).await;
            }
        }
    };
    ($($tests:tt)*) => {
        mod on_mysql {
            $crate::on_each_server! { @kind MySql $($tests)* }
        }

        mod on_mariadb {
            $crate::on_each_server! { @kind MariaDb $($tests)* }
        }
    };
}
