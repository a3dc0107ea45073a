//! The driver layer: copies, order of streams, graphs, and what is refused.

use std::env;
use std::process::Command;

use kernels::cuda::{Buffer, Event, Graph, Priority, devices, rmsnorm};
use kernels::{Error, cuda::Gpu};

use crate::common::{bits, vector};
use crate::done::done;
use crate::setup::{driver, gpu, poisoned, stream, widened};

#[test]
fn what_was_copied_comes_back() {
    let Some(on) = stream() else { return };
    for len in [0, 1, 1000] {
        let sent = vector(1, len);
        let buffer = on.upload(&sent).unwrap();
        let mut second = poisoned::<f32>(&on, len);
        if len > 0 {
            on.copy(buffer.view(), &mut second.view_mut()).unwrap();
        }
        assert_eq!(bits(&on.download(second.view()).unwrap()), bits(&sent));
    }
    let buffer = on.upload(&[1u32, 2, 3, 4]).unwrap();
    let middle = buffer.view().part(1..3).unwrap();
    assert_eq!(on.download(middle).unwrap(), [2, 3]);
    let mut whole = on.upload(&[1u32, 2, 3, 4, 5]).unwrap();
    for (from, to) in [(0..2, 3), (4..5, 0)] {
        on.copy_within(&mut whole.view_mut(), from, to).unwrap();
    }
    assert_eq!(on.download(whole.view()).unwrap(), [2, 2, 3, 1, 2]);
    for (from, to) in [(0..2, 1), (1..3, 0), (2..4, 4)] {
        let refused = on.copy_within(&mut whole.view_mut(), from, to);
        assert!(matches!(refused, Err(Error::Argument { .. })));
    }
    assert!(matches!(
        buffer.view().part(3..5),
        Err(Error::Argument { .. })
    ));
}

#[test]
fn what_was_copied_may_be_dropped_at_once_also_where_a_gpu_reads_it_by_itself() {
    const READS: &str = "NEXTSTATE_EMULATED_HOST_PAGES";
    if env::var_os(READS).is_none() && env::var_os("NEXTSTATE_TEST_GPU").is_none() {
        // A process opens its GPU once.
        let name =
            "driver::what_was_copied_may_be_dropped_at_once_also_where_a_gpu_reads_it_by_itself";
        let run = Command::new(env::current_exe().unwrap())
            .args(["--exact", name])
            .env(READS, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(text.contains("running 1 test"), "{text}");
        assert!(run.status.success(), "{text}");
    }
    let Some(on) = stream() else { return };
    let mut there = poisoned::<u32>(&on, 64);
    let mut sent = vec![7; 64];
    on.write(&sent, &mut there.view_mut()).unwrap();
    sent.fill(9);
    assert_eq!(on.download(there.view()).unwrap(), [7; 64]);
}

#[test]
fn what_is_staged_arrives_although_its_place_is_used_again_at_once() {
    let Some(on) = stream() else { return };
    let mut staging = on.gpu().staging::<f32>(100).unwrap();
    let mut there: Vec<Buffer<f32>> = (0..3).map(|_| poisoned(&on, 100)).collect();
    for (seed, (buffer, len)) in there.iter_mut().zip([100, 1, 64]).enumerate() {
        let sent = vector(seed as u64, len);
        let mut to = buffer.part_mut(0..len).unwrap();
        on.write_by(&mut staging, &sent, &mut to).unwrap();
    }
    drop(staging);
    for (seed, (buffer, len)) in there.iter().zip([100, 1, 64]).enumerate() {
        let found = on.download(buffer.view().part(0..len).unwrap()).unwrap();
        assert_eq!(bits(&found), bits(&vector(seed as u64, len)), "{seed}");
    }
    let mut staging = on.gpu().staging::<f32>(2).unwrap();
    let refused = on.write_by(
        &mut staging,
        &[0.0; 3],
        &mut there[0].part_mut(0..3).unwrap(),
    );
    assert!(matches!(refused, Err(Error::Argument { .. })));
    assert!(on.gpu().staging::<f32>(0).is_err());
}

#[test]
fn a_stream_waits_for_anothers_event() {
    let Some(gpu) = gpu() else { return };
    let (serve, train) = (
        gpu.stream(Priority::High).unwrap(),
        gpu.stream(Priority::Low).unwrap(),
    );
    let mut buffer = poisoned::<u32>(&serve, 64);
    serve.wait().unwrap();
    let event = gpu.event().unwrap();
    train.zero(&mut buffer.view_mut()).unwrap();
    train.record(&event).unwrap();
    serve.wait_for(&event).unwrap();
    assert_eq!(serve.download(buffer.view()).unwrap(), [0; 64]);
}

#[test]
fn who_waits_for_an_event_sleeps_unless_it_takes_the_time() {
    let Some(on) = stream() else { return };
    let gpu = on.gpu();
    let (plain, also) = (gpu.event().unwrap(), gpu.event().unwrap());
    let (from, to) = (gpu.timed_event().unwrap(), gpu.timed_event().unwrap());
    for event in [&plain, &from, &to, &also] {
        on.record(event).unwrap();
    }
    let spins = |event: &Event| {
        let before = done();
        event.wait().unwrap();
        done().zip(before).map(|(now, then)| now.spins - then.spins)
    };
    // On another driver only that it waits.
    if let (Some(sleeping), Some(timed)) = (spins(&also), spins(&to)) {
        assert_eq!((sleeping, timed), (0, 1));
    }
    assert!(to.milliseconds_since(&from).unwrap() >= 0.0);
    let refused = also.milliseconds_since(&plain);
    assert!(matches!(refused, Err(Error::Driver { .. })), "{refused:?}");
}

#[test]
fn an_event_outlives_the_stream_that_it_was_recorded_on() {
    let Some(gpu) = gpu() else { return };
    let (gone, stays) = (
        gpu.stream(Priority::Low).unwrap(),
        gpu.stream(Priority::High).unwrap(),
    );
    let event = gpu.event().unwrap();
    gone.record(&event).unwrap();
    stays.wait_for(&event).unwrap();
    drop(gone);
    event.wait().unwrap();
    stays.wait().unwrap();
    drop(event);
}

#[test]
fn a_graph_repeats_its_launches_on_what_its_buffers_hold_then_and_keeps_them() {
    let Some(on) = stream() else { return };
    let (rows, c) = (3, 64);
    let norm = |on: &_, x: &mut Buffer<f32>, weight: &Buffer<f32>, out: &mut Buffer<_>| {
        let (mut x, mut out) = (x.view_mut(), out.view_mut());
        rmsnorm::forward(on, &mut x, None, weight.view(), 1e-5, &mut out)
    };
    let mut x = on.upload(&vector(1, rows * c)).unwrap();
    let weight = on.upload(&vector(2, c)).unwrap();
    let mut out = poisoned(&on, rows * c);
    let mut graph = on
        .capture(|on| norm(on, &mut x, &weight, &mut out))
        .unwrap();
    let kept = on.download(weight.view()).unwrap();
    drop(weight);
    let weight = on.upload(&kept).unwrap();
    for seed in [1, 5, 9] {
        let values = vector(seed, rows * c);
        on.write(&values, &mut x.view_mut()).unwrap();
        on.replay(&mut graph).unwrap();
        let replayed = widened(&on.download(out.view()).unwrap());
        let mut again = on.upload(&values).unwrap();
        let mut direct = poisoned(&on, rows * c);
        norm(&on, &mut again, &weight, &mut direct).unwrap();
        let direct = widened(&on.download(direct.view()).unwrap());
        assert_eq!(bits(&replayed), bits(&direct), "seed {seed}");
    }
}

#[test]
fn waits_and_marks_cannot_be_recorded_and_the_stream_goes_on() {
    let Some(on) = stream() else { return };
    let refused = on.capture(kernels::cuda::Stream::wait);
    assert!(matches!(refused, Err(Error::Driver { .. })), "{refused:?}");
    let event = on.gpu().event().unwrap();
    let refused = on.capture(|on| on.record(&event));
    assert!(
        matches!(refused, Err(Error::Argument { .. })),
        "{refused:?}"
    );
    assert_eq!(
        on.download(on.upload(&[7u32]).unwrap().view()).unwrap(),
        [7]
    );
}

#[test]
fn who_records_cannot_take_or_give_memory_or_wait_and_others_can() {
    let Some(on) = stream() else { return };
    let gpu = on.gpu();
    let (event, taken) = (gpu.event().unwrap(), poisoned::<u32>(&on, 8));
    on.record(&event).unwrap();
    let memory = || gpu.buffer::<u32>(8).map(drop);
    let check = |what, recorded: Result<Graph, Error>| {
        assert!(
            matches!(recorded, Err(Error::Driver { .. })),
            "{what}: {recorded:?}"
        );
        let mut there = poisoned::<u32>(&on, 1);
        on.zero(&mut there.view_mut()).unwrap();
        assert_eq!(on.download(there.view()).unwrap(), [0], "{what}");
    };
    check("memory", on.capture(|_| memory()));
    check(
        "memory of the host",
        on.capture(|_| gpu.staging::<u32>(8).map(drop)),
    );
    check("a wait", on.capture(|_| event.wait()));
    // What is refused is not known to who drops it, and the recording is lost all the same.
    check(
        "memory that is given back",
        on.capture(|_| {
            drop(taken);
            Ok(())
        }),
    );
    check(
        "what is refused and goes on",
        on.capture(|_| {
            assert!(memory().is_err());
            Ok(())
        }),
    );
    let beside = on.capture(|_| std::thread::scope(|scope| scope.spawn(memory).join().unwrap()));
    beside.unwrap();
}

#[test]
fn the_devices_are_found_and_others_are_refused() {
    if !driver() {
        return;
    }
    let found = devices::find().unwrap();
    assert!(!found.is_empty());
    assert!(
        found[0].memory_bytes > 0 && found[0].driver >= 13_000,
        "{found:?}"
    );
    assert!(matches!(Gpu::open(found.len()), Err(Error::Driver { .. })));
}
