//! Tests that hold on MySQL and MariaDB alike.

/// Makes a test on each server of each function.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_mysql {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(testkit::servers::Kind::MySql).await })*
        }
        mod on_mariadb {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() { super::$test(testkit::servers::Kind::MariaDb).await })*
        }
    };
}

pub(crate) use on_both;
