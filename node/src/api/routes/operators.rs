//! The operations for operators and programs: the cluster, health, metrics, and the OpenAPI document.

use super::shared::{CREDENTIALS, STORE, json, text};
use super::{Access, Operation, Verb};
use crate::api::{cluster, docs, openapi, operations};

/// Lists nodes and shards.
pub(super) const CLUSTER: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(cluster::read(service, call)),
    name: "cluster",
    summary: "Lists nodes and shards",
    access: Access::Reader,
    parameters: &[],
    body: None,
    success: json(200, "Cluster", &[]),
    problems: &[CREDENTIALS, STORE],
};

/// Reads where a coupon is.
pub(super) const PLACE: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(cluster::place(service, call)),
    name: "cluster_coupon",
    summary: "Reads the shard of a coupon and the node that owns it",
    access: Access::Reader,
    parameters: &[],
    body: None,
    success: json(200, "Place", &[]),
    problems: &[CREDENTIALS, &["UNKNOWN_COUPON"], STORE],
};

/// Tells that the process works.
pub(super) const LIVEZ: Operation = Operation {
    handler: |_, _| Box::pin(async move { Ok(operations::livez()) }),
    name: "livez",
    summary: "200 while the process works",
    success: json(200, "Alive", &[]),
    ..OPEN
};

/// Tells whether the node is ready.
pub(super) const READYZ: Operation = Operation {
    handler: |service, _| Box::pin(async move { Ok(operations::readyz(service)) }),
    name: "readyz",
    summary: "200 if a balancer may send requests to this node",
    success: json(200, "Ready", &[]),
    ..OPEN
};

/// Shows metrics.
pub(super) const METRICS: Operation = Operation {
    handler: |service, _| Box::pin(async move { Ok(operations::metrics(service)) }),
    name: "metrics",
    summary: "Metrics, in the text format of Prometheus",
    success: text("text/plain"),
    problems: &[&["OVERLOADED"]],
    ..OPEN
};

/// Shows the OpenAPI document.
pub(super) const OPENAPI: Operation = Operation {
    handler: |service, _| Box::pin(async move { Ok(openapi::document(service)) }),
    name: "openapi",
    summary: "This document",
    success: json(200, "Anything", &[]),
    ..OPEN
};

/// Shows the OpenAPI document as a page.
pub(super) const DOCS: Operation = Operation {
    handler: |_, _| Box::pin(async move { docs::page() }),
    name: "docs",
    summary: "This document as a page",
    success: text("text/html"),
    ..OPEN
};

/// Sends a file of that page.
pub(super) const DOCS_FILE: Operation = Operation {
    handler: |_, call| Box::pin(async move { docs::file(call.parameter()) }),
    name: "docs_file",
    summary: "A file of the page",
    success: text("*/*"),
    problems: &[&["NOT_FOUND"]],
    ..OPEN
};

/// Common fields of operations without credentials and parameters.
const OPEN: Operation = Operation {
    method: Verb::Get,
    handler: |_, _| Box::pin(async move { Ok(operations::livez()) }),
    name: "",
    summary: "",
    access: Access::Anyone,
    parameters: &[],
    body: None,
    success: json(200, "Anything", &[]),
    problems: &[],
};
