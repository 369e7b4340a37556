//! Training that was interrupted goes on where it was: all that a [`Learner`] holds, as bytes.
//!
//! One line of JSON (what is being trained, and the step), then the numbers as little-endian
//! f32. What is being trained is the recipe with the data's hash: a checkpoint of anything else is
//! not gone on with. Whoever writes the bytes to a file does it atomically, so half a
//! checkpoint does not occur.

use super::net::Net;
use super::optimiser::Learner;
use crate::block::{Block, CHANNELS};

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    training: serde_json::Value,
    step: usize,
    blocks: usize,
}

/// The bytes of a checkpoint of `training`.
pub fn to_bytes(learner: &Learner, training: &serde_json::Value) -> Vec<u8> {
    let parts = parts(learner);
    let blocks = parts.iter().map(|part| part.len()).sum();
    let head = Head { training: training.clone(), step: learner.step, blocks };
    let mut bytes = serde_json::to_vec(&head).expect("a head of plain values can be written");
    bytes.push(b'\n');
    bytes.reserve(4 * CHANNELS * blocks);
    for value in parts.into_iter().flatten().flat_map(|block| block.0) {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// The learner of a checkpoint of `training`, whose networks are like `net`; `None` when it is a
/// checkpoint of something else.
pub fn from_bytes(bytes: &[u8], training: &serde_json::Value, net: &Net) -> Option<Learner> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (head, numbers) = bytes.split_at(end);
    let head: Head = serde_json::from_slice(head).ok()?;
    let mut learner = Learner::new(net.clone());
    learner.step = head.step;
    let blocks: usize = parts(&learner).iter().map(|part| part.len()).sum();
    let numbers = numbers.get(1..)?;
    // Through text as well: reading a number may round its last bit.
    let training: serde_json::Value = serde_json::from_str(&training.to_string()).ok()?;
    if head.training != training || blocks != head.blocks || numbers.len() != 4 * CHANNELS * blocks
    {
        return None;
    }
    let mut values = numbers.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    let Learner { net, average, moments: [means, squares], .. } = &mut learner;
    let parts = [
        &mut net.parameters,
        &mut net.statistics,
        &mut average.parameters,
        &mut average.statistics,
        means,
        squares,
    ];
    for value in parts.into_iter().flatten().flat_map(|block| &mut block.0) {
        *value = values.next()?;
    }
    Some(learner)
}

fn parts(learner: &Learner) -> [&[Block]; 6] {
    let Learner { net, average, moments: [means, squares], .. } = learner;
    [&net.parameters, &net.statistics, &average.parameters, &average.statistics, means, squares]
}
