//! Tests of the HTTP contract, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod bulk;
mod changes;
mod checkout;
mod clients;
mod codes;
mod configuration;
mod contract;
mod cors;
mod coupons;
mod documents;
mod examples;
mod exports;
mod framing;
mod fuzz;
mod general;
mod hostile;
mod issuing;
mod jwks_url;
mod jwt;
mod keys;
mod limits;
mod list_load;
mod lists;
mod logs;
mod metrics;
mod mint;
mod offer_fields;
mod operations;
mod pages;
mod process;
mod queries;
mod rate;
mod reads;
mod roles;
mod setbacks;
mod slow_readers;
mod states;
mod statistics;
mod support;
mod tls;
mod tokens;
mod uses;
mod welcome;
