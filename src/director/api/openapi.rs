//! The API's description, OpenAPI 3.1. Written out, as the bodies' types belong to crates
//! that should not know of it; tests hold it against the routes and against real answers.

use serde_json::{Value, json};

/// The document.
pub fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lvx director",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Served on the director's Unix socket, to root and its own user.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" }
        },
        "paths": paths(),
        "components": { "schemas": schemas() }
    })
}

fn paths() -> Value {
    json!({
        "/v1/table": { "get": table() },
        "/v1/commands": { "post": commands() },
        "/v1/check": { "post": check() },
        "/v1/commit": {
            "get": operation("The commit that waits for its confirmation.", reference("Commit")),
            "post": try_out(),
        },
        "/v1/commit/confirm": {
            "post": operation("Keep what the waiting commit changed. 409 where none waits.", reference("Commit"))
        },
        "/v1/commit/return": {
            "post": operation("Take the waiting commit back now. 409 where none waits.", reference("Commit"))
        },
        "/v1/connections": { "get": connections() },
        "/v1/tunables": { "get": operation("Every tunable and its value.", map("string")) },
        "/v1/prefixes": {
            "get": operation("Client prefixes, each `allow` or `deny`.", map("string")),
        },
        "/v1/fwmarks": { "get": operation("Firewall marks by destination.", list("FwmarkRule")) },
        "/v1/counters": {
            "get": operation("Every drop reason and event, and how often.", map("integer"))
        },
        "/v1/sample": {
            "get": operation(
                "All that moves, at one moment: two samples make rates. Counters are live, not \
                 as of the last estimate.",
                reference("Sample"),
            )
        },
        "/v1/explain": { "post": explain() },
        "/v1/openapi.json": {
            "get": operation("This document.", json!({ "type": "object" }))
        }
    })
}

fn operation(summary: &str, schema: Value) -> Value {
    json!({
        "summary": summary,
        "responses": {
            "200": content("The answer.", "application/json", schema),
            "default": failure()
        }
    })
}

fn table() -> Value {
    let mut operation = operation(
        "Services, servers, counters and rates: all, or with a query a part. 400 for another \
         query, or two.",
        reference("Table"),
    );
    let parameter = |name: &str, what: &str, schema: Value| json!({ "name": name, "in": "query", "description": what, "schema": schema });
    operation["parameters"] = json!([
        parameter("services", "All but the services.", words(&["none"])),
        parameter(
            "service",
            "Of the services this one, or none where there is none such: tcp:192.0.2.1:80, \
             udp:[2001:db8::1]:53, fwmark:5:v4.",
            json!({ "type": "string" }),
        ),
    ]);
    operation
}

fn commands() -> Value {
    let mut operation = operation(
        "Carries commands out, in order. Once answered they are in force on every worker.",
        reference("Outcome"),
    );
    operation["requestBody"] = content("The commands.", "application/json", reference("Batch"));
    operation["requestBody"]["required"] = true.into();
    operation
}

fn explain() -> Value {
    let mut operation = operation(
        "What the director would do with a packet, and why. Changes nothing.",
        reference("Explanation"),
    );
    let body = reference("ExplainRequest");
    operation["requestBody"] = content("The packet.", "application/json", body);
    operation["requestBody"]["required"] = true.into();
    operation
}

fn check() -> Value {
    let mut operation = operation(
        "What /v1/commands would answer to these commands, all or none. Nothing is done.",
        reference("Outcome"),
    );
    operation["requestBody"] = content("The commands.", "application/json", reference("Batch"));
    operation["requestBody"]["required"] = true.into();
    operation
}

fn try_out() -> Value {
    let mut operation = operation(
        "Carries commands out, all or none, and takes them back unless they are confirmed in \
         time. The client may go: the director waits. Taking back touches only what the \
         commands changed. 409 where another commit waits.",
        reference("Outcome"),
    );
    operation["requestBody"] = content("The commands.", "application/json", reference("Trial"));
    operation["requestBody"]["required"] = true.into();
    operation
}

fn connections() -> Value {
    let mut operation = operation("Connections and templates, one object a line.", json!({}));
    operation["responses"]["200"] = content(
        "One JSON object a line.",
        "application/x-ndjson",
        reference("ConnectionRow"),
    );
    operation
}

fn content(description: &str, kind: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { kind: { "schema": schema } } })
}

fn failure() -> Value {
    content("What is wrong.", "application/json", reference("Error"))
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name) })
}

fn map(kind: &str) -> Value {
    json!({ "type": "object", "additionalProperties": { "type": kind } })
}

/// An object with these properties, all of them required.
fn object(properties: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let mut object = partial(properties);
    object["required"] = json!(names);
    object
}

/// An object with these properties and no others.
fn partial(properties: &[(&str, Value)]) -> Value {
    let map: serde_json::Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "properties": map, "additionalProperties": false })
}

fn nullable(schema: Value) -> Value {
    json!({ "oneOf": [schema, { "type": "null" }] })
}

fn one_of(variants: Vec<Value>) -> Value {
    json!({ "oneOf": variants })
}

fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// One variant of a tagged union: an object with the variant's name as its only key.
fn variant(name: &str, schema: Value) -> Value {
    object(&[(name, schema)])
}

fn schemas() -> Value {
    let integer = || json!({ "type": "integer", "minimum": 0 });
    let string = || json!({ "type": "string" });
    let boolean = || json!({ "type": "boolean" });
    let address = || json!({ "type": "string", "description": "An IPv4 or IPv6 address." });
    let traffic = || {
        object(&[
            ("connections", integer()),
            ("in_packets", integer()),
            ("out_packets", integer()),
            ("in_bytes", integer()),
            ("out_bytes", integer()),
        ])
    };
    json!({
        "Error": object(&[("error", string())]),
        "Table": object(&[
            ("version", string()),
            ("size", integer()),
            ("timeouts", reference("Timeouts")),
            ("services", list("ServiceRow")),
            ("daemons", list("DaemonRow")),
        ]),
        "Sample": object(&[
            ("at_ns", integer()),
            ("up_ns", integer()),
            ("table", reference("Table")),
            ("counters", map("integer")),
            ("workers", list("WorkerRow")),
            ("places", reference("PlacesRow")),
        ]),
        "PlacesRow": object(&[
            ("capacity", integer()),
            ("taken", integer()),
            ("reached", integer()),
        ]),
        "FramesRow": object(&[
            ("total", integer()),
            ("free", integer()),
            ("in_rings", integer()),
            ("waiting", integer()),
        ]),
        "WorkerRow": object(&[
            ("worker", integer()),
            ("core", integer()),
            ("busy_ns", integer()),
            ("received", integer()),
            ("sent", integer()),
            ("to_host", integer()),
            ("dropped", integer()),
            ("frames", reference("FramesRow")),
        ]),
        "DaemonRow": object(&[
            ("role", words(&["master", "backup"])),
            ("interface", string()),
            ("sync_id", integer()),
            ("max_length_bytes", integer()),
            ("group", address()),
            ("port", integer()),
            ("ttl", integer()),
        ]),
        "Timeouts": timeouts(),
        "ServiceRow": object(&[
            ("service", reference("ServiceKey")),
            ("spec", reference("ServiceSpec")),
            ("limits", nullable(reference("ServiceLimits"))),
            ("stats", reference("Stats")),
            ("rates", reference("Rates")),
            ("servers", list("ServerRow")),
        ]),
        "ServiceLimits": partial(&[
            ("connections_per_s", integer()),
            ("source_connections_per_s", integer()),
            ("source_v4_bits", integer()),
            ("source_v6_bits", integer()),
        ]),
        "ServerRow": object(&[
            ("server", reference("ServerKey")),
            ("spec", reference("ServerSpec")),
            ("local", boolean()),
            ("active", integer()),
            ("inactive", integer()),
            ("persistent", integer()),
            ("stats", reference("Stats")),
            ("rates", reference("Rates")),
        ]),
        "Stats": traffic(),
        "Rates": traffic(),
        "ServiceKey": one_of(vec![
            variant("address", object(&[
                ("protocol", words(&["tcp", "udp", "sctp"])),
                ("address", address()),
                ("port", integer()),
            ])),
            variant("fwmark", object(&[
                ("mark", integer()),
                ("family", words(&["v4", "v6"])),
            ])),
        ]),
        "ServiceSpec": service_spec(),
        "ServerKey": object(&[("address", address()), ("port", integer())]),
        "ServerSpec": server_spec(),
        "Forwarding": one_of(vec![
            words(&["masquerade", "route"]),
            variant("tunnel", reference("Tunnel")),
        ]),
        "Tunnel": one_of(vec![
            words(&["ipip"]),
            variant("gue", object(&[("port", integer()), ("checksum", checksum())])),
            variant("gre", object(&[("checksum", checksum())])),
        ]),
        "ConnectionRow": object(&[
            ("protocol", integer()),
            ("expires_s", integer()),
            ("state", string()),
            ("client", address()),
            ("client_port", integer()),
            ("virtual_address", address()),
            ("virtual_port", integer()),
            ("server", address()),
            ("server_port", integer()),
        ]),
        "FwmarkRule": object(&[
            ("mark", integer()),
            ("address", address()),
            ("protocol", words(&["tcp", "udp", "sctp"])),
            ("ports", json!({ "type": "array", "items": integer() })),
        ]),
        "ExplainRequest": one_of(vec![
            variant("flow", object(&[
                ("protocol", words(&["tcp", "udp", "sctp"])),
                ("client", string()),
                ("destination", string()),
                ("flags", string()),
                ("from_server", boolean()),
            ])),
            variant("frame", object(&[("hex", string()), ("any_link", boolean())])),
        ]),
        "Explanation": object(&[
            ("steps", list("ExplainedStep")),
            ("verdict", string()),
            ("reason", nullable(string())),
            ("frame", string()),
        ]),
        "ExplainedStep": object(&[
            ("stage", string()),
            ("text", string()),
            ("servers", list("CandidateRow")),
        ]),
        "CandidateRow": object(&[
            ("server", reference("ServerKey")),
            ("weight", integer()),
            ("active", integer()),
            ("inactive", integer()),
            ("overloaded", boolean()),
            ("cost", nullable(integer())),
            ("chosen", boolean()),
        ]),
        "Batch": batch(),
        "Trial": object(&[
            ("commands", list("Command")),
            ("confirm_within_s", json!({ "type": "integer", "minimum": 1, "description": "s" })),
        ]),
        "Commit": partial(&[("waiting", nullable(object(&[
            ("left_s", integer()),
            ("undo", list("Command")),
        ])))]),
        "Command": command(),
        "Outcome": object(&[(
            "refusals",
            json!({ "type": "array", "items": nullable(reference("Refusal")) }),
        )]),
        "Refusal": refusal(),
    })
}

fn timeouts() -> Value {
    let seconds = || json!({ "type": "integer", "minimum": 0, "description": "s" });
    object(&[
        ("tcp_s", seconds()),
        ("tcp_fin_s", seconds()),
        ("udp_s", seconds()),
    ])
}

fn checksum() -> Value {
    words(&["none", "full", "remote"])
}

fn service_spec() -> Value {
    let integer = || json!({ "type": "integer", "minimum": 0 });
    let mut spec = partial(&[
        ("scheduler", json!({ "type": "string" })),
        ("flags", integer()),
        ("persistence", nullable(object(&[("timeout_s", integer())]))),
        ("netmask", integer()),
        ("one_packet", json!({ "type": "boolean" })),
        ("engine", nullable(json!({ "type": "string" }))),
    ]);
    spec["required"] = json!(["scheduler", "netmask"]);
    spec
}

fn server_spec() -> Value {
    let integer = || json!({ "type": "integer", "minimum": 0 });
    let mut spec = partial(&[
        ("forwarding", reference("Forwarding")),
        ("weight", integer()),
        ("upper_threshold", integer()),
        ("lower_threshold", integer()),
    ]);
    spec["required"] = json!(["forwarding", "weight"]);
    spec
}

fn batch() -> Value {
    let mut batch = partial(&[
        ("commands", list("Command")),
        (
            "atomic",
            json!({ "type": "boolean", "description": "All or none." }),
        ),
    ]);
    batch["required"] = json!(["commands"]);
    batch
}

fn command() -> Value {
    let service = || ("service", reference("ServiceKey"));
    let server = || ("server", reference("ServerKey"));
    let service_spec = || ("spec", reference("ServiceSpec"));
    let server_spec = || ("spec", reference("ServerSpec"));
    let string = || json!({ "type": "string" });
    one_of(vec![
        words(&["flush"]),
        variant("add_service", object(&[service(), service_spec()])),
        variant("edit_service", object(&[service(), service_spec()])),
        variant(
            "limit_service",
            object(&[service(), ("limits", reference("ServiceLimits"))]),
        ),
        variant("delete_service", object(&[service()])),
        variant("add_server", object(&[service(), server(), server_spec()])),
        variant("edit_server", object(&[service(), server(), server_spec()])),
        variant("delete_server", object(&[service(), server()])),
        variant(
            "zero",
            partial(&[("service", nullable(reference("ServiceKey")))]),
        ),
        variant("set_timeouts", timeouts()),
        variant(
            "set_tunable",
            object(&[("name", string()), ("value", string())]),
        ),
        variant(
            "set_prefixes",
            object(&[
                ("guard", nullable(words(&["allow", "deny"]))),
                ("prefixes", json!({ "type": "array", "items": string() })),
            ]),
        ),
        variant("add_fwmark", reference("FwmarkRule")),
        variant("delete_fwmark", reference("FwmarkRule")),
    ])
}

fn refusal() -> Value {
    let string = || json!({ "type": "string" });
    one_of(vec![
        words(&[
            "service_exists",
            "no_such_service",
            "server_exists",
            "no_such_server",
            "no_such_scheduler",
        ]),
        variant("out_of_range", object(&[("what", string())])),
        variant("invalid", object(&[("what", string())])),
        variant("not_local", object(&[("address", string())])),
        variant("no_such_tunable", object(&[("name", string())])),
        variant(
            "limit",
            object(&[("what", string()), ("limit", json!({ "type": "integer" }))]),
        ),
    ])
}
