//! The AsyncAPI document, made from the types of the payloads: it cannot differ from what is
//! sent. Also at `docs/api/asyncapi.json`.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::options::Op;
use super::payloads::{
    AlarmState, CommandAnswer, CommandRequest, EventMessage, FrameMessage, Presence, Said,
    TwinModel, TwinSave, TwinSession, TwinSource, TwinSync, WellMessage,
};
use reticle_domain::alarm::AlarmKind;
use reticle_domain::health::Health;

/// One channel: name, topic below the box, parameters, summary, message, whether it is retained.
struct Channel {
    name: &'static str,
    topic: &'static str,
    parameters: Vec<(&'static str, Value)>,
    summary: &'static str,
    messages: Vec<&'static str>,
    retained: bool,
}

/// The AsyncAPI 3.0 document.
pub fn asyncapi() -> Value {
    let (messages, schemas) = messages();
    let mut channels = Map::new();
    let mut operations = Map::new();
    for channel in all_channels() {
        let refer = |message: &&str| {
            ((*message).to_owned(), json!({"$ref": format!("#/components/messages/{message}")}))
        };
        let own: Map<String, Value> = channel.messages.iter().map(refer).collect();
        let mut parameters = Map::new();
        for (name, text) in [("site", "Name of the lab."), ("box", "Name of the box.")] {
            parameters.insert(name.to_owned(), json!({ "description": text }));
        }
        for (name, parameter) in channel.parameters {
            parameters.insert(name.to_owned(), parameter);
        }
        channels.insert(
            channel.name.to_owned(),
            json!({
                "address": format!("reticle/v1/{{site}}/{{box}}/{}", channel.topic),
                "description": channel.summary,
                "parameters": parameters,
                "messages": own,
            }),
        );
        let operation = |action: &str, message: &str| {
            json!({
                "action": action,
                "channel": {"$ref": format!("#/channels/{}", channel.name)},
                "messages": [{"$ref": format!("#/channels/{}/messages/{message}", channel.name)}],
                "bindings": {"mqtt": {"qos": 1, "retain": channel.retained}},
            })
        };
        if channel.name == "command" {
            operations.insert("obey".to_owned(), operation("receive", "CommandRequest"));
            operations.insert("answer".to_owned(), operation("send", "CommandAnswer"));
        } else {
            for message in &channel.messages {
                operations.insert(format!("say_{}", channel.name), operation("send", message));
            }
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Reticle",
            "version": "v1",
            "description": "What a box says over MQTT 5, and what may be asked of it. State is \
                retained; measurements, events and commands are not. Measurements and events come \
                at least once: `id` tells who hears of one twice. Times are RFC 3339 in UTC.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn all_channels() -> Vec<Channel> {
    let plain = |name, topic, summary, message, retained| Channel {
        name,
        topic,
        parameters: Vec::new(),
        summary,
        messages: vec![message],
        retained,
    };
    let kinds: Vec<&str> = AlarmKind::ALL.into_iter().map(AlarmKind::word).collect();
    let ops: Vec<&str> = Op::ALL.into_iter().map(Op::word).collect();
    let text = |text: &str| json!({ "description": text });
    vec![
        plain("status", "status", "Whether the box is there; also its will.", "Presence", true),
        plain("health", "health", "What the box itself is like.", "Health", true),
        plain("session", "twin/session", "The acquisition.", "TwinSession", true),
        plain("sync", "twin/sync", "Where results go.", "TwinSync", true),
        plain("source", "twin/source", "Camera or folder.", "TwinSource", true),
        plain("model", "twin/model", "The model in use.", "TwinModel", true),
        plain("save", "twin/save", "Whether results reach the disk.", "TwinSave", true),
        plain("frame", "m/frame", "What a model found in a frame.", "FrameMessage", false),
        plain("well", "m/well", "A well, summed up.", "WellMessage", false),
        Channel {
            name: "alarm",
            topic: "a/{alarm}",
            parameters: vec![("alarm", json!({"description": "Kind of alarm.", "enum": kinds}))],
            summary: "An alarm, on or off.",
            messages: vec!["AlarmState"],
            retained: true,
        },
        Channel {
            name: "event",
            topic: "e/{type}",
            parameters: vec![("type", text("What happened, as `type` in the payload."))],
            summary: "Something that happened.",
            messages: vec!["EventMessage"],
            retained: false,
        },
        Channel {
            name: "command",
            topic: "cmd/{op}/{id}",
            parameters: vec![
                ("op", json!({"description": "What to do.", "enum": ops})),
                ("id", text("1 to 64 letters, digits, '-', '_', '.' or ':', new each time.")),
            ],
            summary: "A command and its answers. Who asks says init; the box says all else, here \
                      and under the response topic of the request where it has one, which lies \
                      below reply/ of the box or a prefix of mqtt.reply_prefixes. A message expiry \
                      counts.",
            messages: vec!["CommandRequest", "CommandAnswer"],
            retained: false,
        },
    ]
}

/// Messages, and the schemas of their payloads.
fn messages() -> (Value, Value) {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    // The words of the box, as they are written.
    let mut generator = settings.for_serialize().into_generator();
    let mut messages = Map::new();
    let at = "2026-01-01T12:00:00Z";
    add::<Presence>(
        &mut generator,
        &mut messages,
        "Presence",
        json!({"state": "online", "boot_id": "1f0c…", "instance": "0199…", "sequence": 2, "at": at,
               "version": "0.1.0"}),
    );
    add::<Health>(&mut generator, &mut messages, "Health", Value::Null);
    add::<Said<TwinSession>>(
        &mut generator,
        &mut messages,
        "TwinSession",
        json!({"run": "running", "session": "0199…", "name": "plate 7", "recording_paused": null, "at": at}),
    );
    add::<Said<TwinSync>>(&mut generator, &mut messages, "TwinSync", Value::Null);
    add::<Said<TwinSource>>(&mut generator, &mut messages, "TwinSource", Value::Null);
    add::<Said<TwinModel>>(&mut generator, &mut messages, "TwinModel", Value::Null);
    add::<Said<TwinSave>>(&mut generator, &mut messages, "TwinSave", Value::Null);
    add::<Said<AlarmState>>(
        &mut generator,
        &mut messages,
        "AlarmState",
        json!({"alarm": "source_lost", "state": "raised", "since": at, "reason": "unplugged",
               "urgent": true, "runbook": "docs/runbook.md#source_lost", "at": at}),
    );
    add::<EventMessage>(
        &mut generator,
        &mut messages,
        "EventMessage",
        json!({"id": "0199…", "at": at, "session": null, "historical": false, "type": "paused",
               "paused": true}),
    );
    add::<FrameMessage>(&mut generator, &mut messages, "FrameMessage", Value::Null);
    add::<WellMessage>(&mut generator, &mut messages, "WellMessage", Value::Null);
    add::<CommandRequest>(
        &mut generator,
        &mut messages,
        "CommandRequest",
        json!({"status": "init", "us": 2000, "at": at}),
    );
    add::<CommandAnswer>(
        &mut generator,
        &mut messages,
        "CommandAnswer",
        json!({"status": "failed", "reason": "not_allowed",
               "detail": "start is not in mqtt.commands of this box"}),
    );
    (Value::Object(messages), Value::Object(generator.take_definitions(true)))
}

fn add<T: JsonSchema>(
    generator: &mut SchemaGenerator,
    messages: &mut Map<String, Value>,
    name: &str,
    example: Value,
) {
    let schema = generator.subschema_for::<T>().to_value();
    let mut message = json!({"name": name, "contentType": "application/json", "payload": schema});
    if !example.is_null() {
        message["examples"] = json!([{ "payload": example }]);
    }
    messages.insert(name.to_owned(), message);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to write the file instead of comparing it.
    const REWRITE: &str = "RETICLE_REWRITE_ASYNCAPI";

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of the sources, written by hand")]
    fn the_published_document_is_the_generated_one() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/asyncapi.json");
        let document = format!("{}\n", serde_json::to_string_pretty(&asyncapi()).unwrap());
        if std::env::var_os(REWRITE).is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &document).unwrap();
        }
        let published = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(published == document, "run this test with {REWRITE}=1 and commit {file:?}");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, root: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        let pointer = to.trim_start_matches('#');
                        assert!(root.pointer(pointer).is_some(), "{to}");
                    }
                    fields.values().for_each(|value| walk(value, root));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, root)),
                _ => {}
            }
        }
        let document = asyncapi();
        walk(&document, &document);
    }
}
