//! Networks that the engine does not know are run by tract, several times slower. The only file that
//! names tract.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, IntoRunnable, IntoTensor, TValue, Tensor,
    TypedSimplePlan, tvec,
};
use tract_onnx::tract_hir::infer::InferenceFact;

use crate::planes::{Planes, Shape};
use crate::run_error::RunError;

type Plan = Arc<TypedSimplePlan>;

/// A network with a prepared plan for each size of image met so far.
pub(crate) struct WithTract {
    onnx: Vec<u8>,
    plans: Mutex<BTreeMap<usize, Plan>>,
}

impl WithTract {
    pub(crate) fn new(onnx: Vec<u8>) -> Self {
        Self { onnx, plans: Mutex::new(BTreeMap::new()) }
    }

    /// The maps of one image of `edge × edge`.
    pub(crate) fn run(&self, image: &[f32], edge: usize) -> Result<Planes, RunError> {
        let failed = |error: &dyn std::fmt::Debug| RunError::run(format!("{error:?}"));
        let input =
            Tensor::from_shape(&[1, 1, edge, edge], image).map_err(|error| failed(&error))?;
        let output = self
            .plan(edge)?
            .run(tvec![TValue::from(input.into_tensor())])
            .map_err(|error| failed(&error))?;
        let output = output.first().ok_or_else(|| failed(&"it gives nothing"))?;
        let &[1, channels, height, width] = output.shape() else {
            return Err(failed(&format!("it gives a tensor of shape {:?}", output.shape())));
        };
        let values = output.to_plain_array_view::<f32>().map_err(|error| failed(&error))?;
        let shape = Shape { channels, height, width };
        Ok(Planes::from_values(shape, &values.iter().copied().collect::<Vec<f32>>()))
    }

    /// One plan for one concrete size: with symbolic sizes tract takes twice as long.
    fn plan(&self, edge: usize) -> Result<Plan, RunError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&edge) {
            return Ok(Arc::clone(plan));
        }
        let fact = InferenceFact::dt_shape(DatumType::F32, [1, 1, edge, edge]);
        let refused = |error| RunError::prepare(format!("{error:?}"));
        let model =
            tract_onnx::onnx().model_for_read(&mut Cursor::new(&self.onnx)).map_err(refused)?;
        // tract would index the first of each without looking.
        if model.input_outlets().is_ok_and(<[_]>::is_empty) {
            return Err(RunError::prepare("it takes no image".to_owned()));
        }
        let plan = model
            .with_input_fact(0, fact)
            .and_then(|model| model.into_optimized()?.into_runnable())
            .map_err(refused)?;
        plans.insert(edge, Arc::clone(&plan));
        Ok(plan)
    }
}
