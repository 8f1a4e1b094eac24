//! The cluster that something is restored into.

use anyhow::{Context as _, Result};
use br_rt::{CancellationToken, Rt};
use br_types::TimeStamp;
use br_workload::{Kinds, Workload, check};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    chaos::Chaos,
    history::{DB, History, set_network},
};
use crate::{
    trace::Trace,
    traces_left::PdState,
    weather::Weather,
    world::{World, draw_options},
};

/// Another cluster, which may have tables of its own.
pub(super) struct Elsewhere {
    pub(super) world: World,
    before: PdState,
}

impl Elsewhere {
    /// Starts it; the weather comes then.
    pub(super) async fn start(rt: &Rt, weather: &Weather, rng: &mut StdRng) -> Result<Elsewhere> {
        set_network(rt, &Weather::fair());
        let world = Box::pin(World::start(draw_options(rt, rng))).await?;
        if rng.random() {
            // Their ids are taken.
            let kinds = Kinds::Wide { tables: 2 };
            Workload::create(&world.client, kinds, rng.random(), "others", None).await?;
        }
        let before = PdState::of(&world).await?;
        set_network(rt, weather);
        Ok(Elsewhere { world, before })
    }

    /// Does the work while all kinds of things happen.
    pub(super) async fn disturbed(
        &mut self,
        trace: &Trace,
        rng: &mut StdRng,
        work: impl AsyncFnOnce(&mut StdRng) -> Result<()>,
    ) -> Result<()> {
        let chaos = Chaos::draw(rng);
        let mut chaos_rng = StdRng::seed_from_u64(rng.random());
        let stop = CancellationToken::new();
        let work = async {
            let done = work(rng).await;
            stop.cancel();
            done
        };
        let chaos = chaos.run(&mut self.world, trace, &mut chaos_rng, &stop);
        let (done, chaos) = futures::join!(Box::pin(work), Box::pin(chaos));
        done?;
        chaos
    }

    /// Compares it with the model, and with what it was before.
    pub(super) async fn compare(
        self,
        rt: &Rt,
        trace: &Trace,
        history: &History,
        at: TimeStamp,
    ) -> Result<()> {
        set_network(rt, &Weather::fair());
        let now = self.world.now().await?;
        let checked = check(&self.world.client, DB, &history.model, at, now).await?;
        trace.note(format_args!("equal: {checked:?}"));
        let comes_back = self.before.comes_back(&self.world).await;
        comes_back.context("the restored cluster")?;
        trace.note("nothing is left in PD");
        Ok(())
    }
}
