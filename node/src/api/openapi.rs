//! `/openapi.json`: the contract for machines. What bodies look like comes from the types that read and write
//! them; what operations take and answer is the table in `openapi/operations.rs`. Tests hold it against the
//! routes, the problems, and every answer that they see.

mod operations;
mod problem_schemas;
mod schemas;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref,
    RefOr, Required, Response, ResponseBuilder, Schema,
};
use warp::reply::Response as HttpResponse;

use super::{Answer, only_reads};
use crate::http::call::Call;
pub(crate) use schemas::{DiscountPatchSchema, DiscountSchema, PhaseSchema, StatusSchema};

use operations::{OPERATIONS, Operation, Who};
use problem_schemas::KINDS;

/// `/openapi.json`
pub(crate) fn document(call: &Call) -> Answer {
    only_reads(call)?;
    let mut response = HttpResponse::new(DOCUMENT.clone().into());
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Written once: it is the same for all.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    // Names and numbers only, which always have a JSON form.
    Bytes::from(open_api().to_pretty_json().unwrap_or_default())
});

const DESCRIPTION: &str = "Limited coupons, first come, first served.\n\n\
    Errors are `application/problem+json` (RFC 9457); `code` is the name to program against, and `applied` says whether the request changed \
    anything (`null`: not known). Paths that are not here are 404 `NOT_FOUND`; methods that a path does not take are 405 \
    `METHOD_NOT_ALLOWED` with `Allow`; heads above 16 KiB, or with more than 100 headers, are 431 `HEADER_TOO_LARGE`; requests that do not \
    come to their end in time are 408 `REQUEST_TIMEOUT`; `HEAD` is `GET` without the body. Every answer has `X-Request-Id`: the request's own, if it sent 1 to 64 \
    visible ASCII characters. Fields may be added to answers; requests with fields that are not known are refused.";

fn open_api() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build();
    let info = InfoBuilder::new()
        .title("Firstcome")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .paths(paths())
        .components(Some(components()))
        .build()
}

fn paths() -> Paths {
    let mut items: BTreeMap<&str, PathItem> = BTreeMap::new();
    for operation in OPERATIONS {
        let item = PathItem::new(operation.method.clone(), describe(operation));
        items
            .entry(operation.route.template())
            .or_default()
            .merge_operations(item);
    }
    items
        .into_iter()
        .fold(PathsBuilder::new(), |paths, (path, item)| paths.path(path, item))
        .build()
}

fn describe(operation: &Operation) -> utoipa::openapi::path::Operation {
    let mut described = OperationBuilder::new()
        .operation_id(Some(operation.name))
        .summary(Some(operation.summary))
        .tag(operation.tag())
        .securities(Some(securities(operation.who)));
    if let Some(parameter) = path_parameter(operation) {
        described = described.parameter(parameter);
    }
    for name in operation.parameters {
        described = described.parameter(parameter(name));
    }
    if let Some((schema, required)) = operation.body {
        let content = || {
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(schema)))
                .build()
        };
        let mut body =
            RequestBodyBuilder::new().required(Some(if required { Required::True } else { Required::False }));
        body = body.content("application/json", content());
        if schema == "PatchCoupon" {
            body = body.content("application/merge-patch+json", content());
        }
        described = described.request_body(Some(body.build()));
    }
    for (status, response) in responses(operation) {
        described = described.response(status.to_string(), response);
    }
    described.build()
}

impl Operation {
    fn tag(&self) -> &'static str {
        match self.route.template().split('/').nth(2) {
            _ if self.route.template().ends_with("/issuances") => "issuing",
            Some("issuances") => "issuing",
            Some("coupons") => "coupons",
            _ => "operations",
        }
    }
}

/// Each alone suffices. Who sends none where none is needed is served as well.
fn securities(who: Who) -> Vec<SecurityRequirement> {
    let scheme = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    match who {
        Who::Anyone => vec![SecurityRequirement::default()],
        Who::User => vec![scheme("user_id"), scheme("jwt")],
        Who::Admin => vec![scheme("admin_token"), scheme("jwt")],
        Who::UserOrAdmin => vec![scheme("user_id"), scheme("admin_token"), scheme("jwt")],
    }
}

/// The answer when all is well, and the problems, by status.
fn responses(operation: &Operation) -> BTreeMap<u16, Response> {
    let answer = &operation.answer;
    let schema: RefOr<Schema> = match answer.schema {
        Some(name) => Ref::from_schema_name(name).into(),
        None => ObjectBuilder::new().schema_type(Type::String).into(),
    };
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut good = response(operation.summary).content(answer.media_type, content);
    for name in answer.headers {
        good = good.header(*name, header(name));
    }
    let mut responses = BTreeMap::from([(answer.status, good.build())]);
    if answer.schema == Some("Ready") {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("NotReady")))
            .build();
        responses.insert(
            503,
            response("Starting, draining, without lease or store")
                .content("application/json", content)
                .build(),
        );
    }
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in operation.problems {
        by_status
            .entry(problem_schemas::of(code).status)
            .or_default()
            .push(*code);
    }
    responses.extend(
        by_status
            .into_iter()
            .map(|(status, codes)| (status, problem_response(&codes))),
    );
    responses
}

/// What is answered with any of these codes, which share a status.
fn problem_response(codes: &[&str]) -> Response {
    let kinds = codes.iter().map(|code| problem_schemas::of(code));
    let lines: Vec<String> = kinds
        .clone()
        .map(|kind| format!("`{}`: {}", kind.code, kind.meaning))
        .collect();
    let schema: RefOr<Schema> = match codes {
        [code] => Ref::from_schema_name(problem_schemas::of(code).schema_name()).into(),
        _ => kinds
            .clone()
            .fold(OneOfBuilder::new(), |one, kind| {
                one.item(Ref::from_schema_name(kind.schema_name()))
            })
            .into(),
    };
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response = response(&lines.join("; ")).content("application/problem+json", content);
    for name in kinds.filter_map(|kind| problem_header(kind.status)) {
        response = response.header(name, header(name));
    }
    response.build()
}

/// The header that goes with problems of a status.
fn problem_header(status: u16) -> Option<&'static str> {
    match status {
        401 | 403 => Some("WWW-Authenticate"),
        405 => Some("Allow"),
        429 | 503 => Some("Retry-After"),
        _ => None,
    }
}

fn response(description: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(description)
        .header("X-Request-Id", header("X-Request-Id"))
}

/// A header of answers.
fn header(name: &str) -> utoipa::openapi::Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let (schema, description) = match name {
        "X-Request-Id" => (
            text.pattern(Some("^[!-~]{1,64}$")),
            "the request's own, if it sent a sane one, else a new one",
        ),
        "Location" => (text.pattern(Some("^/v1/")), "where it is from now on"),
        "ETag" => (
            text.pattern(Some("^\"[0-9]+\"$")),
            "the coupon's version, for If-Match",
        ),
        "Idempotent-Replayed" => (
            text.enum_values(Some(["true"])),
            "there if the same key did this before",
        ),
        "Retry-After" => (text.pattern(Some("^[0-9]+$")), "seconds"),
        "Allow" => (text, "the methods that the page takes"),
        _ => (text, "how to say who asks"),
    };
    HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

/// What stands in the path.
fn path_parameter(operation: &Operation) -> Option<Parameter> {
    let template = operation.route.template();
    let (name, schema) = match template {
        "/v1/issuances/{id}" => (
            "id",
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some("^[1-9][0-9]{0,15}-[1-9][0-9]{0,15}$")),
        ),
        "/docs/{file}" => ("file", ObjectBuilder::new().schema_type(Type::String)),
        _ if template.contains("{id}") => ("id", schemas::whole_number(1, actors::ids::ID_MAX)),
        _ => return None,
    };
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True);
    Some(parameter.schema(Some(schema)).build())
}

/// A parameter in the query or the head.
fn parameter(name: &str) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let (place, schema, description): (_, RefOr<Schema>, _) = match name {
        "limit" => (
            ParameterIn::Query,
            schemas::whole_number(1, 200).default(Some(50.into())).into(),
            "items on the page",
        ),
        "cursor" => (
            ParameterIn::Query,
            text.pattern(Some("^[A-Za-z0-9_-]+$")).into(),
            "a next_cursor of this list",
        ),
        "phase" => (
            ParameterIn::Query,
            Ref::from_schema_name("Phase").into(),
            "only coupons in this phase",
        ),
        "user_id" => (ParameterIn::Query, schemas::user_id().into(), "only this user's"),
        "after_sequence" => (
            ParameterIn::Query,
            schemas::whole_number(0, actors::ids::ID_MAX).into(),
            "only those after it; a cursor goes over it",
        ),
        "If-Match" => (
            ParameterIn::Header,
            text.pattern(Some("^([*]|(W/)?\"[^\"]*\")$")).into(),
            "only if the coupon has this version: one ETag, or *",
        ),
        _ => (
            ParameterIn::Header,
            text.pattern(Some("^[!-~]{1,64}$")).into(),
            "the same again is the same request",
        ),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

fn components() -> Components {
    let mut components = schemas::all()
        .into_iter()
        .fold(ComponentsBuilder::new(), |components, (name, schema)| {
            components.schema(name, schema)
        });
    for kind in KINDS {
        components = components.schema(kind.schema_name(), kind.schema());
    }
    // What paths and methods that are not in this document are answered.
    components = components.response("NotFound", problem_response(&["NOT_FOUND"]));
    components = components.response("MethodNotAllowed", problem_response(&["METHOD_NOT_ALLOWED"]));
    // What any request is answered whose head is too large.
    components = components.response("HeaderTooLarge", problem_response(&["HEADER_TOO_LARGE"]));
    let user = ApiKeyValue::with_description(
        "X-User-Id",
        "auth.mode = header: the user, as a gateway in front has recognised them",
    );
    let bearer = |description: &str| {
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(description.to_owned()))
    };
    let jwt = bearer(
        "auth.mode = jwt: the user is sub; \"role\": \"admin\" for administrators, \"service\" for who issues for others",
    );
    components
        .security_scheme("user_id", SecurityScheme::ApiKey(ApiKey::Header(user)))
        .security_scheme("jwt", SecurityScheme::Http(jwt.bearer_format("JWT").build()))
        .security_scheme(
            "admin_token",
            SecurityScheme::Http(bearer("the administrators' token, in both modes").build()),
        )
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::route::Route;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_slice(&DOCUMENT).unwrap();
        let described: BTreeSet<&str> = document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let routes: BTreeSet<&str> = Route::ALL.iter().map(|route| route.template()).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_problem_of_an_operation_is_one_and_each_is_met_somewhere() {
        let met: BTreeSet<&str> = OPERATIONS
            .iter()
            .flat_map(|operation| operation.problems)
            .copied()
            .chain(["METHOD_NOT_ALLOWED", "HEADER_TOO_LARGE"])
            .collect();
        assert_eq!(met, KINDS.iter().map(|kind| kind.code).collect());
        for operation in OPERATIONS {
            let codes: BTreeSet<&&str> = operation.problems.iter().collect();
            assert_eq!(
                codes.len(),
                operation.problems.len(),
                "{} names one twice",
                operation.name
            );
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_slice(&DOCUMENT).unwrap();
        let text = document.to_string();
        let references: BTreeSet<&str> = text
            .split("\"$ref\":\"#")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
