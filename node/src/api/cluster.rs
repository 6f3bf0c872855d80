//! `/v1/cluster`: nodes and shards, for administrators.

use actors::ids::Incarnation;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::coupons::coupon_id;
use super::{Answer, principal};
use crate::http::call::Call;
use crate::http::json::{self, Text};
use crate::service::Service;
use crate::service::cluster::LiveNodes;
use crate::service::engine::NodeRow;

/// The cluster as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterBody<'a> {
    node: &'a str,
    nodes: Vec<NodeBody<'a>>,
    shards: Vec<ShardBody<'a>>,
}

/// A node as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(super) struct NodeBody<'a> {
    id: &'a str,
    #[schema(value_type = String)]
    incarnation: Text<Incarnation>,
    http: &'a str,
    cluster: &'a str,
    #[schema(pattern = "^(joining|ready|leaving|ended)$")]
    state: &'static str,
    shards: usize,
}

/// A shard as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shard)]
pub(super) struct ShardBody<'a> {
    id: u16,
    epoch: u64,
    #[schema(required)]
    owner: Option<&'a str>,
}

/// The place of a coupon as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlaceBody<'a> {
    coupon_id: u64,
    shard: u16,
    #[schema(required)]
    owner: Option<&'a str>,
    epoch: u64,
}

/// `GET /v1/cluster`
pub(super) async fn read(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_reader()?;
    let view = service.cluster().await?;
    let live = LiveNodes::new(&view.nodes);
    let shards_of = |node: &NodeRow| {
        view.shards
            .iter()
            .filter(|shard| live.owner(shard) == Some(node.id.as_str()))
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
        owner: live.owner(shard),
    });
    let body = ClusterBody {
        node: service.node().as_str(),
        nodes: nodes.collect(),
        shards: shards.collect(),
    };
    Ok(json::response(StatusCode::OK, &body))
}

/// `GET /v1/cluster/coupons/{id}`
pub(super) async fn place(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_reader()?;
    let coupon = coupon_id(call.parameter())?;
    let (shard, nodes) = service.place(coupon).await?;
    let body = PlaceBody {
        coupon_id: coupon.get(),
        shard: shard.id.get(),
        owner: LiveNodes::new(&nodes).owner(&shard),
        epoch: shard.epoch.get(),
    };
    Ok(json::response(StatusCode::OK, &body))
}
