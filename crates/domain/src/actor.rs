//! Who gives an order to a box, and what it may do. One function decides ([`Access::may`]); no other
//! place asks who somebody is.
//!
//! There are no accounts yet: whoever reaches the page may do everything, which is why the page
//! listens on this machine alone unless its owner says otherwise. A client of the broker may do what
//! the settings name. What the box does by itself needs no order, and is an event.

use std::fmt;
use std::net::IpAddr;

reticle_base::words! {
    /// What can be done on a box. Whoever gives rights names these words.
    Action {
        /// Begin a session, or go on after a pause.
        Start = "start",
        /// Hold capture.
        Pause = "pause",
        /// End the session.
        Stop = "stop",
        /// Take one frame out.
        Snapshot = "snapshot",
        /// Set the exposure of the camera.
        SetExposure = "set_exposure",
        /// Deliver what waits, or what was refused, to the archive and the central database.
        Deliver = "deliver",
        /// Have images of the watched folder read again.
        ReadImages = "read_images",
    }
}

/// Who gives an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A page or a program on this machine, over HTTP.
    Local,
    /// A page or a program on another machine, over HTTP.
    Network(IpAddr),
    /// A client of the broker, which does not say which one.
    Mqtt,
    /// The command line of this machine, run by this user. The kernel vouches for it.
    User {
        /// The number that the operating system has for the user.
        uid: u32,
    },
}

impl Actor {
    /// Whoever calls over HTTP from this address. A proxy on this machine counts as this machine.
    pub fn at(address: IpAddr) -> Self {
        let address = address.to_canonical();
        if address.is_loopback() { Self::Local } else { Self::Network(address) }
    }
}

/// As it is recorded and shown: `local`, `network:10.0.0.7`, `mqtt`, `user:1000`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Network(address) => write!(f, "network:{address}"),
            Self::Mqtt => f.write_str("mqtt"),
            Self::User { uid } => write!(f, "user:{uid}"),
        }
    }
}

/// Who may do what on this box. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Access {
    mqtt: Vec<Action>,
}

impl Access {
    /// With what clients of the broker may do; nothing by default.
    pub fn new(mqtt: impl IntoIterator<Item = Action>) -> Self {
        Self { mqtt: mqtt.into_iter().collect() }
    }

    /// Whether this actor may do this.
    pub fn may(&self, actor: &Actor, action: Action) -> bool {
        match actor {
            Actor::Local | Actor::Network(_) | Actor::User { .. } => true,
            Actor::Mqtt => self.mqtt.contains(&action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_may_do_what_is_named_and_whoever_is_at_the_box_everything() {
        let access = Access::new([Action::Pause]);
        for action in Action::ALL {
            assert_eq!(access.may(&Actor::Mqtt, action), action == Action::Pause, "{action:?}");
            assert!(!Access::default().may(&Actor::Mqtt, action), "{action:?}");
            for actor in [Actor::Local, Actor::User { uid: 1000 }] {
                assert!(access.may(&actor, action), "{actor} {action:?}");
            }
        }
    }

    #[test]
    fn an_actor_is_recorded_by_a_name_that_tells_where_it_acted() {
        let at = |text: &str| Actor::at(text.parse().unwrap()).to_string();
        assert_eq!(at("127.0.0.1"), "local");
        assert_eq!(at("::1"), "local");
        assert_eq!(at("::ffff:127.0.0.1"), "local");
        assert_eq!(at("10.0.0.7"), "network:10.0.0.7");
        assert_eq!(Actor::User { uid: 0 }.to_string(), "user:0");
        assert_eq!(Actor::Mqtt.to_string(), "mqtt");
    }
}
