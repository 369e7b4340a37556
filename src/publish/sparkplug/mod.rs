//! Sparkplug B 3.0, for SCADA systems: the other thing that the box may speak, never both.
//!
//! The box is an edge node without devices: the group is the site, the node is the box.
//!
//! What it promises
//! 1. Nothing under `reticle/`, nothing retained, and only `NBIRTH`, `NDATA` and `NDEATH` of this
//!    node.
//! 2. Every connection begins with an `NBIRTH` of all metrics ([`metrics`]). After it come only
//!    changes, at most once a second; `seq` has no holes on our side. A message that could not be
//!    handed over is followed by a new `NBIRTH`.
//! 3. The `NDEATH` of a connection has the `bdSeq` of its `NBIRTH`. The broker says it when the
//!    box is gone without a word, the box itself before it leaves.
//! 4. `Node Control/Rebirth` is obeyed. No other command is, whatever `mqtt.commands` says.
//!
//! What it does not promise, because Sparkplug sends data with QoS 0: that anything arrives. So
//! events and results are not told one by one, and nothing waits for the broker.

mod life;
mod metrics;
mod node;
mod payload;

pub(super) use node::Node;

use super::error::PublishError;
use super::options::Options;
use reticle_domain::facts::BoxName;

/// First level of all topics.
pub(super) const NAMESPACE: &str = "spBv1.0";

/// Whether the settings can be meant together with Sparkplug.
///
/// # Errors
/// Names the key of what there is not.
pub(super) fn fits(options: &Options) -> Result<(), PublishError> {
    const NOT_HERE: &str = "there is none with mqtt.mode = \"sparkplug\"; leave it out, or set \
                            mqtt.mode = \"reticle\"";
    if !options.commands.is_empty() {
        return Err(PublishError::stop("mqtt.commands", NOT_HERE));
    }
    if options.home_assistant {
        return Err(PublishError::stop("mqtt.home_assistant", NOT_HERE));
    }
    Ok(())
}

/// The topics of one edge node. Site and name were found fit to be levels of a topic before.
struct Names {
    site: String,
    own: String,
}

impl Names {
    fn of(name: &BoxName) -> Self {
        Self { site: name.site.clone(), own: name.name.clone() }
    }

    fn birth(&self) -> String {
        self.topic("NBIRTH")
    }

    fn data(&self) -> String {
        self.topic("NDATA")
    }

    fn death(&self) -> String {
        self.topic("NDEATH")
    }

    fn commands(&self) -> String {
        self.topic("NCMD")
    }

    fn topic(&self, kind: &str) -> String {
        format!("{NAMESPACE}/{}/{kind}/{}", self.site, self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{Broker, Mode, Op};

    fn sparkplug() -> Options {
        let url = Some("mqtt://broker".to_owned());
        Options { url, mode: Mode::Sparkplug, ..Options::default() }
    }

    fn named(site: &str) -> BoxName {
        BoxName { site: site.to_owned(), name: "box-1".to_owned() }
    }

    #[test]
    fn topics_are_those_of_group_and_edge_node() {
        let names = Names::of(&named("lab"));
        assert_eq!(names.birth(), "spBv1.0/lab/NBIRTH/box-1");
        assert_eq!(names.data(), "spBv1.0/lab/NDATA/box-1");
        assert_eq!(names.death(), "spBv1.0/lab/NDEATH/box-1");
        assert_eq!(names.commands(), "spBv1.0/lab/NCMD/box-1");
    }

    #[test]
    fn what_sparkplug_does_not_have_is_refused_by_its_key() {
        assert_eq!(fits(&sparkplug()), Ok(()));
        let commands = Options { commands: vec![Op::Pause], ..sparkplug() };
        assert_eq!(fits(&commands).unwrap_err().what, "mqtt.commands");
        let home_assistant = Options { home_assistant: true, ..sparkplug() };
        assert_eq!(fits(&home_assistant).unwrap_err().what, "mqtt.home_assistant");
    }

    #[test]
    fn a_site_that_would_be_another_group_is_refused() {
        for bad in ["a/b", "a+", "#"] {
            let refused = Broker::open(&sparkplug(), &named(bad)).err().unwrap();
            assert_eq!(refused.what, "box.site", "{bad}");
        }
        let broker = Broker::open(&sparkplug(), &named("lab")).unwrap().unwrap();
        assert_eq!(broker.place(), "mqtt://broker:1883/spBv1.0/lab/box-1");
        assert!(!broker.tells_all());
    }
}
