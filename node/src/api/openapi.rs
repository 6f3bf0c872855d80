//! `/openapi.json`: the HTTP contract for programs. Schemas of bodies come from the types that read and write
//! them, and operations come from the table of routes. Tests compare the document with every response that
//! they get.

mod descriptions;
mod examples;
mod parameters;
mod problem_schemas;
mod schemas;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{OperationBuilder, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ComponentsBuilder, Discriminator, ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref,
    RefOr, Required, Response, ResponseBuilder, Schema,
};
use warp::reply::Response as HttpResponse;

pub(super) use self::schemas::{
    DiscountPatchSchema, DiscountSchema, MetadataPatchSchema, MetadataSchema, PhaseSchema, StatusSchema,
    user_ids,
};

use self::parameters::{header, parameter, path_parameter, redirect_target};
use self::problem_schemas::KINDS;
use super::routes::{Body, Operation, ROUTES, Route};
use crate::http::response_body::SharedBody;
use crate::service::Service;

/// Returns the status of the problem with this code.
pub(super) fn status(code: &str) -> u16 {
    problem_schemas::of(code).status
}

/// `GET /openapi.json`
pub(super) fn document(service: &Service) -> HttpResponse {
    let document = if service.user_may_reserve() {
        &DOCUMENT_FOR_RESERVING_USERS
    } else {
        &DOCUMENT
    };
    let mut response = HttpResponse::new(Bytes::clone(document).into());
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(SharedBody);
    response
}

/// The document, serialized once.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| written(false));

/// The document of nodes with `coupon.user_may_reserve`.
static DOCUMENT_FOR_RESERVING_USERS: LazyLock<Bytes> = LazyLock::new(|| written(true));

fn written(user_may_reserve: bool) -> Bytes {
    // The document has string keys only, so serializing cannot fail.
    Bytes::from(open_api(user_may_reserve).to_pretty_json().unwrap_or_default())
}

const DESCRIPTION: &str = "Limited coupons, first come, first served.\n\n\
    Errors are `application/problem+json` (RFC 9457). Program against `code`; `applied` says whether the \
    request changed anything (`null`: not known). Paths that are not in this document are 404 `NOT_FOUND`; \
    methods that a path does not accept are 405 `METHOD_NOT_ALLOWED` with `Allow`; a head above 16 KiB, or \
    with more than 100 headers, is 431 `HEADER_TOO_LARGE`; a request that is not sent in time is 408 \
    `REQUEST_TIMEOUT`; a request of HTTP/1.1 without exactly one `Host` is 400 `MALFORMED`, and one with a \
    transfer coding other than `chunked` 501 `NOT_IMPLEMENTED`; `/` redirects to `/docs` (307), and a path \
    with a slash at its end to the one without it (308); `HEAD` is `GET` without the body. Every response has \
    `X-Request-Id`: that of the request, if it has one of 1 to 64 visible ASCII characters. Responses that \
    depend on the credentials have `Cache-Control: no-store` and `Vary`; every response has \
    `X-Content-Type-Options: nosniff`. Fields may be added to responses; requests with unknown fields or \
    query parameters are refused.\n\n\
    To try it here on a fresh node: authorize (the admin token, and a user like `alice`), create a coupon, \
    issue it, list what the user has. The examples are filled in.";

fn open_api(user_may_reserve: bool) -> OpenApi {
    let license = LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build();
    let info = InfoBuilder::new()
        .title("Firstcome")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    let tag = |(name, description): (&str, &str)| {
        let tag = TagBuilder::new().name(name);
        tag.description(Some(description)).build()
    };
    let server = |(url, description): (&str, &str)| {
        let server = ServerBuilder::new().url(url);
        server.description(Some(description)).build()
    };
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(descriptions::TAGS.map(tag)))
        .servers(Some(SERVERS.map(server)))
        .paths(paths(user_may_reserve))
        .components(Some(components()))
        .build()
}

/// The servers of the API. Swagger UI sends requests to the first one, whose URL is relative to the document.
const SERVERS: [(&str, &str); 2] = [
    ("/", "the node that serves this document"),
    (
        "http://127.0.0.1:8080",
        "a node on this machine with default settings",
    ),
];

fn paths(user_may_reserve: bool) -> Paths {
    let mut items: BTreeMap<&str, PathItem> = BTreeMap::new();
    for route in &ROUTES {
        let item = items.entry(route.template()).or_default();
        for operation in route.operations {
            let described = describe(route, operation, user_may_reserve);
            item.merge_operations(PathItem::new(operation.method.openapi(), described));
        }
    }
    items
        .into_iter()
        .fold(PathsBuilder::new(), |paths, (path, item)| paths.path(path, item))
        .build()
}

fn describe(
    route: &Route,
    operation: &Operation,
    user_may_reserve: bool,
) -> utoipa::openapi::path::Operation {
    let allowed = operation.access.allowed(user_may_reserve);
    let mut described = OperationBuilder::new()
        .operation_id(Some(operation.name))
        .summary(Some(operation.summary))
        .description(Some(descriptions::operation(operation.name)))
        .tag(descriptions::tag(route.template()))
        .securities(Some(securities(allowed)))
        .extensions(Some(ExtensionsBuilder::new().add("x-allowed", allowed).build()));
    if let Some(parameter) = path_parameter(route.template()) {
        described = described.parameter(parameter);
    }
    for name in operation.parameters {
        described = described.parameter(parameter(operation.name, name));
    }
    if let Some(body) = operation.body {
        described = described.request_body(Some(request_body(body)));
    }
    for (status, response) in responses(operation) {
        described = described.response(status.to_string(), response);
    }
    described.build()
}

fn request_body(body: Body) -> RequestBody {
    let content = || {
        ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(body.schema)))
            .example(Some(examples::request(body.schema)))
            .build()
    };
    let required = if body.required {
        Required::True
    } else {
        Required::False
    };
    let mut described = RequestBodyBuilder::new()
        .required(Some(required))
        .content("application/json", content());
    if !body.required {
        described = described.description(Some("No body, `{}` and `[]` are the same."));
    }
    if body.schema == "PatchCoupon" {
        described = described.content("application/merge-patch+json", content());
    }
    described.build()
}

/// Returns the kinds of credentials of those that may call an operation. A request needs only one of them.
fn securities(allowed: &[&str]) -> Vec<SecurityRequirement> {
    let scheme = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    let schemes: &[&str] = match (allowed.contains(&"user"), allowed) {
        (_, ["anyone"]) => return vec![SecurityRequirement::default()],
        (true, ["user"]) => &["user_id", "jwt"],
        (true, _) => &["user_id", "admin_token", "key", "jwt"],
        (false, _) => &["admin_token", "key", "jwt"],
    };
    schemes.iter().copied().map(scheme).collect()
}

/// Returns the responses of an operation by status, both for success and for problems.
fn responses(operation: &Operation) -> BTreeMap<u16, Response> {
    let success = &operation.success;
    let schema: RefOr<Schema> = match success.schema {
        Some(name) => Ref::from_schema_name(name).into(),
        None => ObjectBuilder::new().schema_type(Type::String).into(),
    };
    let content = ContentBuilder::new()
        .schema(Some(schema))
        .example(success.schema.map(examples::response))
        .build();
    let mut succeeded = response(operation.summary).content(success.media_type, content);
    for name in success.headers {
        succeeded = succeeded.header(*name, header(name));
    }
    let mut responses = BTreeMap::from([(success.status, succeeded.build())]);
    if success.schema == Some("Ready") {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("NotReady")))
            .example(Some(examples::response("NotReady")))
            .build();
        responses.insert(
            503,
            response("Starting, draining, or without lease, group or store")
                .content("application/json", content)
                .build(),
        );
    }
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let mut codes: Vec<&str> = operation.problems.concat();
    // Every operation refuses parameters that it does not have.
    if !codes.contains(&"INVALID") {
        codes.push("INVALID");
    }
    for code in codes {
        by_status
            .entry(problem_schemas::of(code).status)
            .or_default()
            .push(code);
    }
    responses.extend(
        by_status
            .into_iter()
            .map(|(status, codes)| (status, problem_response(&codes))),
    );
    responses
}

/// Returns the response for these codes, which all have the same status.
fn problem_response(codes: &[&str]) -> Response {
    let kinds = codes.iter().map(|code| problem_schemas::of(code));
    let lines: Vec<String> = kinds
        .clone()
        .map(|kind| format!("`{}`: {}", kind.code, kind.meaning))
        .collect();
    let schema: RefOr<Schema> = match codes {
        [code] => Ref::from_schema_name(problem_schemas::of(code).schema_name()).into(),
        _ => one_of("code", kinds.clone().map(|kind| (kind.code, kind.schema_name()))),
    };
    let examples = kinds.clone().map(|kind| {
        let example = ExampleBuilder::new().summary(kind.meaning);
        (kind.code, example.value(Some(kind.example())).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build();
    let mut response = response(&lines.join("; ")).content("application/problem+json", content);
    for name in kinds.filter_map(|kind| problem_header(kind.status)) {
        response = response.header(name, header(name));
    }
    response.build()
}

/// Returns the schema of a value that has one of these schemas. The value of this property says which one, so
/// that client generators know the type.
fn one_of(property: &str, schemas: impl Iterator<Item = (&'static str, String)> + Clone) -> RefOr<Schema> {
    let mapping = schemas
        .clone()
        .map(|(value, name)| (value, format!("#/components/schemas/{name}")));
    let discriminator = Discriminator::with_mapping(property, mapping);
    schemas
        .fold(OneOfBuilder::new(), |one, (_, name)| {
            one.item(Ref::from_schema_name(name))
        })
        .discriminator(Some(discriminator))
        .into()
}

/// Returns the header that problems with this status carry.
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

fn components() -> Components {
    let mut components = schemas::all()
        .into_iter()
        .fold(ComponentsBuilder::new(), |components, (name, schema)| {
            components.schema(name, schema)
        });
    for kind in KINDS {
        components = components.schema(kind.schema_name(), kind.schema());
    }
    // Responses to paths and methods that are not in this document.
    components = components.response("NotFound", problem_response(&["NOT_FOUND"]));
    components = components.response("MethodNotAllowed", problem_response(&["METHOD_NOT_ALLOWED"]));
    // The response to any request with too large a head.
    components = components.response("HeaderTooLarge", problem_response(&["HEADER_TOO_LARGE"]));
    // The response to any request with a transfer coding other than `chunked`.
    components = components.response("NotImplemented", problem_response(&["NOT_IMPLEMENTED"]));
    // The response to `/`, and to a path with a slash at its end.
    let redirect = response("The path that was probably meant").header("Location", redirect_target());
    components = components.response("Redirect", redirect.build());
    let user = ApiKeyValue::with_description(
        "X-User-Id",
        "auth.mode = header: the user, as the gateway in front has authenticated it; without a gateway any \
         name, like alice",
    );
    let bearer = |description: &str| {
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(description.to_owned()))
    };
    let jwt = bearer(
        "auth.mode = jwt: the user is sub, or the claim auth.jwt.user_claim; the role is the claim \
         auth.jwt.role_claim: admin, operator, service or viewer",
    );
    let key = bearer(
        "the secret of a named key (auth.keys_file), in both modes; x-allowed of an operation names the roles \
         that may call it",
    );
    components
        .security_scheme("user_id", SecurityScheme::ApiKey(ApiKey::Header(user)))
        .security_scheme("key", SecurityScheme::Http(key.build()))
        .security_scheme("jwt", SecurityScheme::Http(jwt.bearer_format("JWT").build()))
        .security_scheme(
            "admin_token",
            SecurityScheme::Http(
                bearer("the admin token, a key of the role admin, in both modes; by default in the file admin_token of data_dir")
                    .build(),
            ),
        )
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_the_operations_of_the_table_and_no_others() {
        let document: serde_json::Value = serde_json::from_slice(&DOCUMENT).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                described.insert((path.clone(), method.clone(), name.to_owned()));
            }
        }
        let mut routed = BTreeSet::new();
        for route in &ROUTES {
            for operation in route.operations {
                let method = format!("{:?}", operation.method).to_lowercase();
                routed.insert((route.template().to_owned(), method, operation.name.to_owned()));
            }
        }
        assert_eq!(described, routed);
    }

    #[test]
    fn every_problem_of_an_operation_is_known_and_every_known_problem_is_used() {
        let general = ["METHOD_NOT_ALLOWED", "HEADER_TOO_LARGE", "NOT_IMPLEMENTED"];
        let mut used = BTreeSet::from(general);
        for operation in ROUTES.iter().flat_map(|route| route.operations) {
            let codes: Vec<&str> = operation.problems.concat();
            let distinct = BTreeSet::from_iter(codes.iter().copied());
            assert_eq!(distinct.len(), codes.len(), "{} repeats a code", operation.name);
            used.extend(codes);
        }
        assert_eq!(used, KINDS.iter().map(|kind| kind.code).collect());
    }

    #[test]
    fn every_reference_has_a_target() {
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
