//! One connection to the broker: made, watched, and thrown away whole after any error.
//!
//! rumqttc 0.25 has traps, for each of which there is a guard here:
//! - It forgets publishes that wait when the broker has no session for us. So nothing counts as
//!   told before its PubAck ([`Flight`]); the rest is read again from the store.
//! - `clean()` leaves a packet that collided where it is, and with it nothing is sent any more
//!   (issue 1056). So after any error the client is made anew, with a state that has none.
//! - It does not read a DISCONNECT without properties, so that mosquitto's reason for ending the
//!   connection is lost; `namesake.rs` has other signs of a client of the same name.
//! - `publish().await` waits for ever when its queue is full. So [`Link::hand_over`] never waits;
//!   fewer messages are on their way than the queue has room for.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, PubAckReason,
    Publish, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, StateError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::PublishError;
use super::target::Target;
use reticle_base::backoff::Backoff;

/// Most messages on their way. Brokers take 20 (mosquitto) to some thousands.
const WINDOW: usize = 50;

/// Room in rumqttc's queue: the window, and a few subscriptions.
const QUEUE: usize = WINDOW + 14;

/// The first wait between two attempts to connect.
const FIRST: Duration = Duration::from_millis(500);

/// Longest wait between two attempts to connect: in the first minute, and later.
const EAGER: Duration = Duration::from_secs(2);
const PATIENT: Duration = Duration::from_secs(60);

/// How long without a connection is the first minute.
const EAGER_FOR: Duration = Duration::from_secs(60);

/// How long to wait before attempt number `attempt` (from 0), `away` after the connection was
/// lost; `jitter` from 0 to 1 keeps boxes of one lab from coming all at once.
pub(super) fn back_off(attempt: u32, away: Duration, jitter: f64) -> Duration {
    let cap = if away < EAGER_FOR { EAGER } else { PATIENT };
    Backoff::new(FIRST, cap).jittered(attempt.saturating_add(1), jitter)
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outbound {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    pub(super) correlation: Option<bytes::Bytes>,
}

/// What is heard from the broker.
#[derive(Debug)]
pub(super) enum Heard {
    /// Connected.
    Connected,
    /// The broker said yes or no to a message.
    Answered(u16, PubAckReason),
    /// Some subscription was refused.
    NotSubscribed(SubscribeReasonCode),
    /// A message came.
    Came(Publish),
    /// The connection is gone, or none could be made.
    Ended(PublishError),
    /// The broker gave our place to another client of our name.
    TakenOver(PublishError),
    /// Of no interest.
    Nothing,
}

/// Which message has which packet id, and which are not acknowledged. rumqttc gives out the ids
/// and tells them in the order in which it was handed the messages.
pub(super) struct Flight<T> {
    handed: VecDeque<T>,
    flying: HashMap<u16, T>,
    /// Its id is still that of an older message.
    collided: Option<(u16, T)>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { handed: VecDeque::new(), flying: HashMap::new(), collided: None }
    }
}

impl<T> Flight<T> {
    pub(super) fn hand(&mut self, message: T) {
        self.handed.push_back(message);
    }

    fn outgoing(&mut self, outgoing: &Outgoing) {
        match *outgoing {
            // QoS 0 has no id, and nobody says whether it came.
            Outgoing::Publish(0) => {}
            Outgoing::Publish(id) => {
                let message = match self.collided.take() {
                    Some((collided, message)) if collided == id => Some(message),
                    other => {
                        self.collided = other;
                        self.handed.pop_front()
                    }
                };
                if let Some(message) = message {
                    self.flying.insert(id, message);
                }
            }
            Outgoing::AwaitAck(id) => {
                self.collided = self.handed.pop_front().map(|message| (id, message));
            }
            _ => {}
        }
    }

    /// The message with this id is no longer on its way.
    pub(super) fn land(&mut self, id: u16) -> Option<T> {
        self.flying.remove(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.handed.len() + self.flying.len() + usize::from(self.collided.is_some())
    }

    /// All that were on their way, in no order.
    pub(super) fn fall(&mut self) -> Vec<T> {
        let flying = std::mem::take(&mut self.flying).into_values();
        let collided = self.collided.take().map(|(_, message)| message);
        self.handed.drain(..).chain(flying).chain(collided).collect()
    }
}

/// A connection, or the one attempt to make it.
pub(super) struct Link<T> {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    pub(super) flight: Flight<T>,
    window: usize,
    /// Polls until the first error. Ends with this.
    _poller: JoinSet<()>,
}

impl<T> Link<T> {
    pub(super) fn open(target: &Target, will: LastWill) -> Self {
        let (client, eventloop) = AsyncClient::new(target.options(Some(will)), QUEUE);
        // Full only while the feed is busy; then the connection waits, which is what it should.
        let (sender, events) = mpsc::channel(QUEUE);
        let mut poller = JoinSet::new();
        poller.spawn(Box::pin(poll(eventloop, sender)));
        Self { client, events, flight: Flight::default(), window: WINDOW, _poller: poller }
    }

    /// Waits for what the broker says. May be dropped while it waits.
    pub(super) async fn hear(&mut self, place: &str) -> Heard {
        let event = self.events.recv().await;
        match event {
            Some(Ok(Event::Outgoing(outgoing))) => {
                self.flight.outgoing(&outgoing);
                Heard::Nothing
            }
            Some(Ok(Event::Incoming(packet))) => match packet {
                Packet::ConnAck(connack) => {
                    self.window = window_of(&connack);
                    Heard::Connected
                }
                Packet::PubAck(puback) => Heard::Answered(puback.pkid, puback.reason),
                Packet::SubAck(suback) => {
                    let no = |code: &&SubscribeReasonCode| {
                        !matches!(code, SubscribeReasonCode::Success(_))
                    };
                    match suback.return_codes.iter().find(no) {
                        Some(code) => Heard::NotSubscribed(*code),
                        None => Heard::Nothing,
                    }
                }
                Packet::Publish(publish) => Heard::Came(publish),
                _ => Heard::Nothing,
            },
            Some(Err(error)) if is_taken_over(&error) => Heard::TakenOver(explain(place, &error)),
            Some(Err(error)) => Heard::Ended(explain(place, &error)),
            None => Heard::Ended(PublishError::retry(place, "the connection ended")),
        }
    }

    /// Whether another message may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.flight.len() < self.window
    }

    /// Hands a message over, QoS 1; gives it back where that cannot be now.
    pub(super) fn hand_over(&mut self, message: Outbound, name: T) -> Result<(), (Outbound, T)> {
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some("application/json".to_owned()),
            correlation_data: message.correlation.clone(),
            ..PublishProperties::default()
        };
        let handed = self.client.try_publish_with_properties(
            message.topic.clone(),
            QoS::AtLeastOnce,
            message.retain,
            message.payload.clone(),
            properties,
        );
        if handed.is_err() {
            return Err((message, name));
        }
        self.flight.hand(name);
        Ok(())
    }

    /// Hands bytes over as they are, not retained: QoS 1 where they have a name, else QoS 0. False
    /// where that cannot be now.
    pub(super) fn hand_over_bytes(
        &mut self,
        topic: String,
        payload: Vec<u8>,
        name: Option<T>,
    ) -> bool {
        let qos = if name.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let handed = self.client.try_publish(topic, qos, false, payload).is_ok();
        if let Some(name) = name.filter(|_| handed) {
            self.flight.hand(name);
        }
        handed
    }

    /// Asks for commands, and for what is said of this box by others: its own late wills.
    pub(super) fn subscribe(&self, status: &str, commands: Option<&str>) -> bool {
        // Not "no local": a broker may take the will of our earlier connection for our own words.
        let status = Filter::new(status, QoS::AtLeastOnce);
        let commands = commands.map(|commands| Filter {
            nolocal: true,
            // A retained command is refused, for which we must see that it is one.
            preserve_retain: true,
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::new(commands, QoS::AtLeastOnce)
        });
        self.client.try_subscribe_many(std::iter::once(status).chain(commands)).is_ok()
    }

    /// Says good-bye, so that the broker keeps the will to itself.
    pub(super) async fn close(mut self) {
        if self.client.try_disconnect().is_err() {
            return;
        }
        while let Some(Ok(_)) = self.events.recv().await {}
    }
}

/// Waits for what the broker says; for ever where there is no connection.
pub(super) async fn hear<T>(link: &mut Option<Link<T>>, place: &str) -> Heard {
    match link {
        Some(link) => link.hear(place).await,
        None => std::future::pending().await,
    }
}

async fn poll(mut eventloop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = eventloop.poll().await;
        let last = event.is_err();
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}

fn window_of(connack: &ConnAck) -> usize {
    let most = connack.properties.as_ref().and_then(|properties| properties.receive_max);
    most.map_or(WINDOW, |most| WINDOW.min(most.into())).max(1)
}

/// Connects under another name, and disconnects.
pub(super) async fn probe(target: &Target, place: &str) -> Result<(), PublishError> {
    let (client, mut eventloop) = AsyncClient::new(target.probe_options(), QUEUE);
    loop {
        match eventloop.poll().await.map_err(|error| explain(place, &error))? {
            Event::Incoming(Packet::ConnAck(_)) => {
                client.try_disconnect().map_err(|error| PublishError::retry(place, error))?;
            }
            Event::Outgoing(Outgoing::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}

/// Whether the broker has the message.
pub(super) fn is_taken(reason: PubAckReason) -> bool {
    matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers)
}

/// What a refused message means.
pub(super) fn refusal(topic: &str, reason: PubAckReason) -> PublishError {
    let what = format!("publish under {topic}");
    match reason {
        PubAckReason::NotAuthorized => {
            PublishError::stop(what, "not authorised: let this box's user write there (ACL)")
        }
        PubAckReason::QuotaExceeded => {
            PublishError::stop(what, "the broker's quota is used up: look at its limits")
        }
        other => PublishError::stop(what, format!("the broker refused it: {other:?}")),
    }
}

fn is_taken_over(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) = error else {
        return false;
    };
    *reason_code == DisconnectReasonCode::SessionTakenOver
}

/// What an error of the connection means.
fn explain(place: &str, error: &ConnectionError) -> PublishError {
    use ConnectReturnCode as Code;
    let refused = |code: &ConnectReturnCode| match code {
        Code::BadUserNamePassword | Code::NotAuthorized | Code::Banned => PublishError::stop(
            place,
            "the broker does not let this box in: check mqtt.username, and the password in \
             RETICLE_MQTT_PASSWORD or the credential mqtt-password",
        ),
        Code::BadClientId | Code::ClientIdentifierNotValid => {
            PublishError::stop(place, "the broker does not take this name: set mqtt.client_id")
        }
        Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => {
            PublishError::stop(place, "the broker does not speak MQTT 5: it needs one that does")
        }
        other => PublishError::retry(place, format!("the broker refused: {other:?}")),
    };
    let tls = |why: &dyn std::fmt::Display| {
        PublishError::stop(
            place,
            format!("TLS failed: {why}; check mqtt.ca_file, mqtt.cert_file and the host's name"),
        )
    };
    match error {
        taken if is_taken_over(taken) => {
            PublishError::retry(place, "another client of this name was let in instead")
        }
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => refused(code),
        ConnectionError::Tls(rumqttc::v5::TlsError::Io(io))
            if io.kind() != std::io::ErrorKind::InvalidData =>
        {
            PublishError::retry(place, io)
        }
        ConnectionError::Tls(error) => tls(error),
        ConnectionError::Timeout(_) => PublishError::retry(place, "no answer in time"),
        ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => tls(error),
        other => PublishError::retry(place, other),
    }
}

#[cfg(test)]
mod tests {
    use reticle_base::remedy::Remedy;
    use rumqttc::v5::mqttbytes::v5::PubAck;
    use rumqttc::v5::{MqttState, Request};

    use super::*;

    fn publish(state: &mut MqttState, topic: &str) {
        let publish = Publish::new(topic, QoS::AtLeastOnce, "x", None);
        state.handle_outgoing_packet(Request::Publish(publish)).unwrap();
    }

    fn follow(flight: &mut Flight<&'static str>, state: &mut MqttState) -> Vec<&'static str> {
        let mut landed = Vec::new();
        while let Some(event) = state.events.pop_front() {
            match event {
                Event::Outgoing(outgoing) => flight.outgoing(&outgoing),
                Event::Incoming(Packet::PubAck(puback)) => landed.extend(flight.land(puback.pkid)),
                Event::Incoming(_) => {}
            }
        }
        landed
    }

    #[test]
    fn acknowledgements_out_of_order_find_their_messages_through_a_collision() {
        let (mut state, mut flight) = (MqttState::new(2, false), Flight::default());
        for topic in ["a", "b"] {
            flight.hand(topic);
            publish(&mut state, topic);
        }
        state.handle_incoming_packet(Packet::PubAck(PubAck::new(2, None))).unwrap();
        assert_eq!(follow(&mut flight, &mut state), ["b"]);
        flight.hand("c");
        publish(&mut state, "c");
        assert!(state.collision.is_some(), "c got the id of a, which is not acknowledged");
        assert!(follow(&mut flight, &mut state).is_empty());
        state.handle_incoming_packet(Packet::PubAck(PubAck::new(1, None))).unwrap();
        assert_eq!(follow(&mut flight, &mut state), ["a"]);
        state.handle_incoming_packet(Packet::PubAck(PubAck::new(1, None))).unwrap();
        assert_eq!(follow(&mut flight, &mut state), ["c"]);
        assert_eq!(flight.len(), 0);
    }

    /// Where this fails, rumqttc has mended it, and the client need not be thrown away.
    #[test]
    fn the_state_of_rumqttc_keeps_a_collision_and_a_new_one_has_none() {
        let mut state = MqttState::new(2, false);
        publish(&mut state, "a");
        publish(&mut state, "b");
        state.handle_incoming_packet(Packet::PubAck(PubAck::new(2, None))).unwrap();
        publish(&mut state, "c");
        state.clean();
        assert!(state.collision.is_some(), "clean() clears it now");
        assert!(MqttState::new(2, false).collision.is_none());
    }

    #[test]
    fn what_was_on_its_way_is_all_given_back() {
        let mut flight = Flight::default();
        for n in 0..4 {
            flight.hand(n);
        }
        flight.outgoing(&Outgoing::Publish(1));
        flight.outgoing(&Outgoing::AwaitAck(1));
        assert_eq!(flight.len(), 4);
        let mut fallen = flight.fall();
        fallen.sort_unstable();
        assert_eq!(fallen, [0, 1, 2, 3]);
        assert_eq!(flight.len(), 0);
    }

    #[test]
    fn what_nobody_acknowledges_takes_the_place_of_nothing_that_is_on_its_way() {
        let mut flight = Flight::default();
        flight.hand("death");
        flight.outgoing(&Outgoing::Publish(0));
        flight.outgoing(&Outgoing::Publish(1));
        assert_eq!(flight.land(1), Some("death"));
        assert_eq!(flight.len(), 0);
    }

    #[test]
    fn attempts_are_quick_in_the_first_minute_and_a_minute_apart_at_most() {
        let at = |attempt, seconds| back_off(attempt, Duration::from_secs(seconds), 1.0);
        assert_eq!(at(0, 0), Duration::from_millis(500));
        assert_eq!(at(20, 59), EAGER);
        assert_eq!(at(20, 60), PATIENT);
        assert_eq!(back_off(20, EAGER_FOR, 0.0), PATIENT / 2);
    }

    /// The first as brokers with properties send it. The second is mosquitto's: where this fails,
    /// rumqttc reads it, and `namesake.rs` needs no other signs.
    #[test]
    fn a_take_over_is_read_with_properties_and_not_without() {
        use rumqttc::v5::mqttbytes::v5::Packet;
        let read = |bytes: &[u8]| Packet::read(&mut bytes::BytesMut::from(bytes), None);
        let Ok(Packet::Disconnect(disconnect)) = read(&[0xe0, 0x02, 0x8e, 0x00]) else {
            panic!("it is not read");
        };
        let mut state = MqttState::new(2, false);
        let ended = state.handle_incoming_packet(Packet::Disconnect(disconnect)).unwrap_err();
        assert!(is_taken_over(&ConnectionError::MqttState(ended)));
        assert!(read(&[0xe0, 0x01, 0x8e]).is_err());
        assert!(!is_taken_over(&ConnectionError::MqttState(StateError::ConnectionAborted)));
    }

    #[test]
    fn a_refusal_to_let_the_box_in_wants_a_person() {
        let error = ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized);
        let error = explain("mqtts://host:8883", &error);
        assert_eq!(error.remedy, Remedy::Stop);
        assert!(error.why.contains("mqtt.username"), "{error}");
    }
}
