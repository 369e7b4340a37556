//! Orders that the store carries out, from the control loop's side: asked without waiting, and
//! answered when the store has.

use std::sync::mpsc::{self, TryRecvError, sync_channel};

use serde_json::{Value, json};

use reticle_domain::order::{Done, Order};
use reticle_store::{Answer, Ask, Job, StoreError};

/// Orders that wait for the store at most, while it stands still.
const MOST: usize = 16;

/// An order that the store has, or is owed.
struct UnderWay {
    order: Order,
    done: Done,
    answers: mpsc::Receiver<Result<Answer, StoreError>>,
    /// How many deliveries or images get another chance, as far as the store has said.
    retried: Option<u64>,
    /// Why the store could not do all of it.
    failed: Option<String>,
}

/// Orders that the store has not answered yet.
#[derive(Default)]
pub(super) struct Granting(Vec<UnderWay>);

/// An order that has come to its end.
pub(super) struct Ended {
    pub(super) order: Order,
    pub(super) done: Done,
    pub(super) result: Result<Value, String>,
}

impl Granting {
    /// Begins an order: what is to be handed to the store for it, in this order.
    ///
    /// # Errors
    /// Too many wait already; the order has ended with that.
    pub(super) fn begin(
        &mut self,
        order: Order,
        asks: Vec<Ask>,
        done: Done,
    ) -> Result<Vec<Job>, Box<Ended>> {
        if self.0.len() >= MOST {
            let result = Err(format!("{MOST} orders wait for the store; ask again later"));
            return Err(Box::new(Ended { order, done, result }));
        }
        let (reply, answers) = sync_channel(asks.len());
        let jobs = asks.into_iter().map(|ask| Job::Ask { ask, reply: reply.clone() }).collect();
        self.0.push(UnderWay { order, done, answers, retried: None, failed: None });
        Ok(jobs)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that the store has answered since.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        let is_over = |under_way: &mut UnderWay| under_way.is_over();
        self.0.extract_if(.., is_over).map(UnderWay::end).collect()
    }
}

impl UnderWay {
    fn is_over(&mut self) -> bool {
        loop {
            match self.answers.try_recv() {
                Ok(Ok(Answer::Retried(items))) => self.retried = Some(items),
                Ok(Ok(Answer::Intake(images))) => self.retried = Some(images.cast_unsigned()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.failed = Some(error.to_string()),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn end(self) -> Ended {
        let Self { order, done, retried, failed, .. } = self;
        let result = match (failed, retried) {
            (Some(error), _) => Err(error),
            (None, Some(retried)) => Ok(json!({ "retried": retried })),
            (None, None) => Ok(json!({})),
        };
        Ended { order, done, result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_domain::actor::Actor;
    use reticle_domain::order::Command;

    fn begin(granting: &mut Granting, asks: Vec<Ask>) -> Result<Vec<Job>, Box<Ended>> {
        let order = Order::new(Actor::Local, Command::RetryDeliveries, None).unwrap();
        granting.begin(order, asks, Box::new(|_| {}))
    }

    fn answer(job: Job, answer: Result<Answer, StoreError>) {
        let Job::Ask { reply, .. } = job else { panic!("{job:?}") };
        reply.send(answer).unwrap();
    }

    #[test]
    fn an_order_ends_when_the_store_has_answered_all_that_it_was_asked() {
        let mut granting = Granting::default();
        let mut jobs =
            begin(&mut granting, vec![Ask::Retry, Ask::DeliverNow]).ok().unwrap().into_iter();
        assert!(granting.ended().is_empty());
        answer(jobs.next().unwrap(), Ok(Answer::Retried(3)));
        assert!(granting.ended().is_empty(), "the second is not answered");
        answer(jobs.next().unwrap(), Ok(Answer::Written));
        drop(jobs);
        let ended = granting.ended();
        assert_eq!(ended[0].result, Ok(json!({ "retried": 3 })));
        assert!(granting.ended().is_empty(), "an order ends once");
    }

    #[test]
    fn while_the_store_stands_still_a_bounded_number_of_orders_waits() {
        let mut granting = Granting::default();
        let held: Vec<_> =
            (0..MOST).map(|_| begin(&mut granting, vec![Ask::DeliverNow]).ok().unwrap()).collect();
        let refused = begin(&mut granting, vec![Ask::DeliverNow]).unwrap_err();
        assert!(refused.result.unwrap_err().contains("ask again later"));
        drop(held);
        assert_eq!(granting.ended().len(), MOST, "the store has ended, and nobody is left waiting");
    }
}
