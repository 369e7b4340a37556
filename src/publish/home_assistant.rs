//! What Home Assistant is told: one retained message with all there is to show of the box
//! (device-based discovery), off by default. It names topics and nothing secret.

use serde_json::{Value, json};

use super::topics::Topics;
use reticle_domain::facts::BoxName;

/// Topic and body of the message.
pub(super) fn discovery(topics: &Topics, box_name: &BoxName) -> (String, Value) {
    let id = id_of(box_name);
    let sensor = |part: &str, name: &str, topic: String, template: &str| {
        let component = json!({
            "p": "sensor",
            "name": name,
            "unique_id": format!("{id}_{part}"),
            "state_topic": topic,
            "value_template": format!("{{{{ value_json.{template} }}}}"),
        });
        (part.to_owned(), component)
    };
    let mut components: serde_json::Map<String, Value> = [
        sensor("run", "Acquisition", topics.twin("session"), "run"),
        sensor("source", "Source", topics.twin("source"), "state"),
        sensor("save", "Saving", topics.twin("save"), "state"),
        sensor("objects", "Objects in the last frame", topics.measurement("frame"), "objects"),
        sensor("temperature", "Processor", topics.health(), "temperature_c"),
    ]
    .into_iter()
    .collect();
    for kind in reticle_domain::alarm::AlarmKind::ALL {
        let word = kind.word();
        components.insert(
            format!("alarm_{word}"),
            json!({
                "p": "binary_sensor",
                "name": word.replace('_', " "),
                "unique_id": format!("{id}_alarm_{word}"),
                "device_class": "problem",
                "state_topic": topics.alarm(kind),
                "value_template": "{{ 'online' if value_json.state == 'online' else 'offline' }}",
                "payload_on": "raised",
                "payload_off": "cleared",
            }),
        );
    }
    let body = json!({
        "device": {
            "identifiers": [id],
            "name": format!("Reticle {}", box_name.name),
            "model": "Reticle",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": { "name": "reticle", "sw_version": env!("CARGO_PKG_VERSION") },
        "availability": [{
            "topic": topics.status(),
            "value_template": "{{ value_json.state }}",
            "payload_available": "online",
            "payload_not_available": "offline",
        }],
        "components": components,
        "qos": 1,
    });
    (format!("homeassistant/device/{id}/config"), body)
}

/// Home Assistant takes letters, digits, `-` and `_`; others become their hex digits, so that two
/// boxes stay two.
fn id_of(box_name: &BoxName) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c.to_string()
                } else {
                    format!("_{:x}", u32::from(c))
                }
            })
            .collect()
    };
    format!("reticle_{}_{}", plain(&box_name.site), plain(&box_name.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_names_the_topics_and_every_alarm() {
        let name = BoxName { site: "Süd".to_owned(), name: "box 1".to_owned() };
        let (topic, body) = discovery(&Topics::of(&name).unwrap(), &name);
        assert_eq!(topic, "homeassistant/device/reticle_S_fcd_box_201/config");
        assert_eq!(body["components"]["run"]["state_topic"], "reticle/v1/Süd/box 1/twin/session");
        assert_eq!(body["components"]["run"]["value_template"], "{{ value_json.run }}");
        assert!(body["components"]["alarm_source_lost"].is_object());
    }
}
