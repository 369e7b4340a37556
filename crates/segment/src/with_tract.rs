//! Networks that our own engine does not know are run by tract, several times slower.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, IntoRunnable, IntoTensor, TValue, Tensor,
    TypedSimplePlan, tvec,
};
use tract_onnx::tract_hir::infer::InferenceFact;

use super::engine::{Planes, Shape};
use super::network::NetworkError;

type Plan = Arc<TypedSimplePlan>;

/// A network with a prepared plan for each tile size met so far.
pub(super) struct WithTract {
    onnx: Vec<u8>,
    plans: Mutex<BTreeMap<usize, Plan>>,
}

impl WithTract {
    pub(super) fn new(onnx: Vec<u8>) -> Self {
        Self { onnx, plans: Mutex::new(BTreeMap::new()) }
    }

    /// The maps of one tile of `edge × edge`.
    pub(super) fn run(&self, tile: &[f32], edge: usize) -> Result<Planes, NetworkError> {
        let failed = |error: &dyn std::fmt::Debug| NetworkError::new("cannot run it", &error);
        let input =
            Tensor::from_shape(&[1, 1, edge, edge], tile).map_err(|error| failed(&error))?;
        let output = self
            .plan(edge)?
            .run(tvec![TValue::from(input.into_tensor())])
            .map_err(|error| failed(&error))?;
        let &[1, channels, height, width] = output[0].shape() else {
            return Err(failed(&format!("it gives a tensor of shape {:?}", output[0].shape())));
        };
        let values = output[0].to_plain_array_view::<f32>().map_err(|error| failed(&error))?;
        let shape = Shape { channels, height, width };
        Ok(Planes::from_values(shape, &values.iter().copied().collect::<Vec<f32>>()))
    }

    /// One plan for one concrete tile size: with symbolic sizes tract takes twice as long.
    fn plan(&self, edge: usize) -> Result<Plan, NetworkError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&edge) {
            return Ok(Arc::clone(plan));
        }
        let fact = InferenceFact::dt_shape(DatumType::F32, [1, 1, edge, edge]);
        let plan = tract_onnx::onnx()
            .model_for_read(&mut Cursor::new(&self.onnx))
            .and_then(|model| model.with_input_fact(0, fact)?.into_optimized()?.into_runnable())
            .map_err(|error| NetworkError::new("cannot prepare it", &error))?;
        plans.insert(edge, Arc::clone(&plan));
        Ok(plan)
    }
}
