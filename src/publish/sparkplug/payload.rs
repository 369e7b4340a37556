//! The messages of Sparkplug B: those parts of Eclipse Tahu's `sparkplug_b.proto` that the box
//! says or reads. Others are passed over when they are read.

use prost::Message;

/// A whole message.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Payload {
    /// When it was said, milliseconds since 1970, UTC.
    #[prost(uint64, optional, tag = "1")]
    pub(super) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
    /// 0 to 255, round and round; an `NDEATH` has none.
    #[prost(uint64, optional, tag = "3")]
    pub(super) seq: Option<u64>,
}

/// One value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    /// When it was so, milliseconds since 1970, UTC.
    #[prost(uint64, optional, tag = "3")]
    pub(super) timestamp: Option<u64>,
    /// A [`Datatype`]. In births only: the host remembers it.
    #[prost(uint32, optional, tag = "4")]
    pub(super) datatype: Option<u32>,
    #[prost(bool, optional, tag = "7")]
    pub(super) is_null: Option<bool>,
    #[prost(oneof = "Value", tags = "10, 11, 12, 13, 14, 15")]
    pub(super) value: Option<Value>,
}

/// What a metric holds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    String(String),
}

/// Those of Sparkplug's data types that the box uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Datatype {
    /// In [`Value::Long`].
    UInt64 = 8,
    Float = 9,
    Boolean = 11,
    String = 12,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Payload {
        let metric = |name: &str, datatype: Datatype, value: Option<Value>| Metric {
            name: Some(name.to_owned()),
            timestamp: Some(2),
            datatype: Some(datatype as u32),
            is_null: value.is_none().then_some(true),
            value,
        };
        Payload {
            timestamp: Some(300),
            metrics: vec![
                metric("b", Datatype::UInt64, Some(Value::Long(255))),
                metric("t", Datatype::Float, None),
                metric("a", Datatype::Boolean, Some(Value::Boolean(true))),
                metric("s", Datatype::String, Some(Value::String("x".to_owned()))),
                metric("f", Datatype::Float, Some(Value::Float(1.0))),
            ],
            seq: Some(0),
        }
    }

    /// By hand, after the encoding of protocol buffers. A field that is there is written, even
    /// where it is zero: a birth without `seq` would be refused.
    #[test]
    fn bytes_are_those_of_the_schema() {
        let by_hand = [
            "08ac02",
            "120a0a016218022008", // name, timestamp, datatype; then the value
            "58ff01",
            "12090a017418022009",
            "3801",
            "12090a01611802200b",
            "7001",
            "120a0a01731802200c",
            "7a0178",
            "120c0a016618022009",
            "650000803f",
            "1800",
        ];
        assert_eq!(hex::encode(example().encode_to_vec()), by_hand.concat());
        assert_eq!(Payload::decode(example().encode_to_vec().as_slice()), Ok(example()));
    }

    #[test]
    fn what_the_box_does_not_know_is_passed_over() {
        // An alias (2) and an empty metadata (8) in a metric, and a uuid (4).
        let foreign = hex::decode("0801120a0a01621005420058ff01180022017a").unwrap();
        let payload = Payload::decode(foreign.as_slice()).unwrap();
        assert_eq!(payload.seq, Some(0));
        assert_eq!(payload.metrics[0].name.as_deref(), Some("b"));
        assert_eq!(payload.metrics[0].value, Some(Value::Long(255)));
        assert!(Payload::decode(&b"{\"status\":\"init\"}"[..]).is_err());
    }
}
