//! What the nodes and shards are, for administrators.

use std::collections::HashMap;

use actors::ids::Incarnation;
use actors::owning::message::Refusal;
use actors::store::{NodeRow, NodeState, ShardRow};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::coupons::coupon_id;
use super::{Answer, App, only_reads};
use crate::http::call::Call;
use crate::http::json::{self, Text};

/// The cluster in the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClusterBody<'a> {
    node: &'a str,
    nodes: Vec<NodeBody<'a>>,
    shards: Vec<ShardBody<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(crate) struct NodeBody<'a> {
    id: &'a str,
    #[schema(value_type = String)]
    incarnation: Text<Incarnation>,
    http: &'a str,
    cluster: &'a str,
    #[schema(pattern = "^(joining|ready|leaving|ended)$")]
    state: &'static str,
    shards: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shard)]
pub(crate) struct ShardBody<'a> {
    id: u16,
    epoch: u64,
    #[schema(required)]
    owner: Option<&'a str>,
}

/// Where a coupon is, in the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceBody<'a> {
    coupon_id: u64,
    shard: u16,
    #[schema(required)]
    owner: Option<&'a str>,
    epoch: u64,
}

/// `/v1/cluster`
pub(crate) async fn all(app: &App, call: &Call) -> Answer {
    only_reads(call)?;
    app.recogniser.recognise(&call.head)?.admin()?;
    let engine = app.engine()?.clone();
    let view = app.read(async move { engine.cluster().await }).await?;
    let owners = Owners::new(&view.nodes);
    let shards_of = |node: &NodeRow| {
        view.shards
            .iter()
            .filter(|shard| owners.name(shard) == Some(node.id.as_str()))
            .count()
    };
    let nodes = view.nodes.iter().map(|node| NodeBody {
        id: node.id.as_str(),
        incarnation: Text(node.incarnation),
        http: &node.http,
        cluster: &node.cluster,
        state: node.state.as_str(),
        shards: shards_of(node),
    });
    let shards = view.shards.iter().map(|shard| ShardBody {
        id: shard.id.get(),
        epoch: shard.epoch.get(),
        owner: owners.name(shard),
    });
    let body = ClusterBody {
        node: app.node.as_str(),
        nodes: nodes.collect(),
        shards: shards.collect(),
    };
    Ok(json::response(StatusCode::OK, &body))
}

/// `/v1/cluster/coupons/{id}`
pub(crate) async fn coupon(app: &App, id: &str, call: &Call) -> Answer {
    only_reads(call)?;
    app.recogniser.recognise(&call.head)?.admin()?;
    let coupon = coupon_id(id)?;
    let engine = app.engine()?.clone();
    let reading = async move {
        if engine.store().coupon(coupon).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(engine.place(coupon.shard()).await?))
    };
    let (shard, nodes) = app.read(reading).await?.ok_or(Refusal::UnknownCoupon)?;
    let owner = Owners::new(&nodes).name(&shard);
    let body = PlaceBody {
        coupon_id: coupon.get(),
        shard: shard.id.get(),
        owner,
        epoch: shard.epoch.get(),
    };
    Ok(json::response(StatusCode::OK, &body))
}

/// Names of living incarnations.
struct Owners<'a>(HashMap<Incarnation, &'a str>);

impl<'a> Owners<'a> {
    fn new(nodes: &'a [NodeRow]) -> Self {
        let living = nodes.iter().filter(|node| node.state != NodeState::Ended);
        Self(living.map(|node| (node.incarnation, node.id.as_str())).collect())
    }

    /// The node that owns the shard; none if its owner lives no more.
    fn name(&self, shard: &ShardRow) -> Option<&'a str> {
        self.0.get(&shard.owner?).copied()
    }
}
