//! What prompts share that begin alike and come together, and what is kept no longer than it is of use.

use super::*;

/// Fewer rows in a step than the prompts have.
fn chunked() -> Bench {
    Bench::new(Config {
        prefill_rows: 64,
        ..Config::default()
    })
}

/// Four prompts of one tenant: three votes on the same, and one that goes another way after 150 tokens.
fn votes(weights: &Weights) -> Vec<SampleJob> {
    let asked = prompt(31, 200);
    let mut other = asked[..150].to_vec();
    other.extend(prompt(32, 20));
    let prompts = [&asked, &asked, &asked, &other];
    let jobs = prompts.into_iter().zip(1..);
    jobs.map(|(prompt, seed)| job(weights.clone(), prompt.clone(), 4, seed))
        .collect()
}

fn finish_all(bench: &mut Bench, mut listeners: Vec<Listener>) -> Vec<Heard> {
    let heard = listeners
        .iter_mut()
        .map(|listener| bench.finish(listener).0);
    heard.collect()
}

#[test]
fn votes_that_come_together_compute_their_prompt_once_and_each_hears_what_it_hears_alone() {
    for weights in [Weights::Base, adapter("one")] {
        let mut bench = chunked();
        let jobs = votes(&weights);
        let asked = jobs.iter().cloned();
        let listeners = asked
            .map(|job| bench.sample_as(Priority::Loop, job))
            .collect();
        let heard = finish_all(&mut bench, listeners);
        let stats = bench.handle.stats();
        // The first computes all of it, the next two its last row, the fourth its own end; each three rows of its reply.
        assert_eq!(stats.rows, 200 + 1 + 1 + 20 + 4 * 3, "{stats:?}");
        assert_eq!(stats.reused_tokens, 199 + 199 + 150, "{stats:?}");
        for (job, heard) in jobs.into_iter().zip(heard) {
            let alone = Bench::alone(Config::default(), job);
            assert_eq!(heard.bits(), alone.bits());
        }
    }
}

#[test]
fn scores_that_are_asked_at_once_and_begin_alike_compute_the_beginning_once() {
    for weights in [Weights::Base, adapter("one")] {
        let asked = prompt(37, 150);
        let questions = [20, 30, 40].map(|more| ScoreRequest {
            weights: weights.clone(),
            prompt: [asked.clone(), prompt(more, more)].concat(),
            continuations: vec![prompt(38, 3), prompt(39, 2)],
            temperature: 1.0,
        });
        let mut bench = chunked();
        let together = score_all(&mut bench, &questions);
        let stats = bench.handle.stats();
        assert_eq!(stats.reused_tokens, 150 + 150, "{stats:?}");
        // The beginning, three ends, and of each continuation all but its last token.
        assert_eq!(stats.rows, 150 + 20 + 30 + 40 + 3 * (2 + 1), "{stats:?}");
        for (question, together) in questions.iter().zip(&together) {
            let alone = score_all(
                &mut Bench::new(Config::default()),
                std::slice::from_ref(question),
            );
            assert_eq!(&alone[0], together);
        }
    }
}

/// The bits of each question's scores; all are asked before the first is computed.
fn score_all(bench: &mut Bench, questions: &[ScoreRequest]) -> Vec<Vec<u32>> {
    let asked = questions
        .iter()
        .map(|question| bench.score(question.clone()));
    let answers: Vec<_> = asked.collect();
    let heard = answers.into_iter().map(|mut answer| {
        loop {
            // The first answers' turns may have computed this one, too, and an idle engine would wait.
            if let Ok(scores) = answer.try_recv() {
                let scores = scores.unwrap().concat();
                return scores.iter().map(|score| score.to_bits()).collect();
            }
            bench.worker.turn();
        }
    });
    heard.collect()
}

#[test]
fn a_vote_goes_on_when_the_one_that_computed_for_it_goes_away() {
    let mut bench = chunked();
    let wanted = job(Weights::Base, prompt(33, 200), 3, 1);
    let leader = bench.sample(wanted.clone());
    let mut other = bench.sample(wanted.clone());
    bench.worker.turn();
    drop(leader);
    let (heard, _) = bench.finish(&mut other);
    assert_eq!(heard.bits(), Bench::alone(Config::default(), wanted).bits());
}

#[test]
fn tenants_weights_and_priorities_that_differ_share_nothing_while_they_run() {
    let mut bench = chunked();
    let asked = prompt(34, 100);
    let with = |weights: Weights| job(weights, asked.clone(), 2, 1);
    let mut listeners = vec![
        bench.sample(with(Weights::Base)),
        bench.sample(with(adapter("one"))),
        bench.sample(with(adapter("two"))),
        bench.sample_as(Priority::Loop, with(Weights::Base)),
    ];
    let permit = bench
        .handle
        .reserve(Priority::User, &"another".into())
        .unwrap();
    let (sender, events) = mpsc::unbounded_channel();
    permit.enqueue(Work::Sample {
        job: with(Weights::Base),
        events: sender,
    });
    listeners.push(Listener {
        events,
        heard: Heard::default(),
    });
    finish_all(&mut bench, listeners);
    assert_eq!(bench.handle.stats().reused_tokens, 0);
}

#[test]
fn what_must_be_forgotten_is_not_copied_while_it_runs() {
    let mut bench = chunked();
    let wanted = job(Weights::Base, prompt(35, 200), 2, 1);
    let mut running = bench.sample(wanted.clone());
    bench.worker.turn();
    bench.handle.forget_prefixes();
    let mut later = bench.sample(wanted);
    bench.finish(&mut running);
    bench.finish(&mut later);
    assert_eq!(bench.handle.stats().reused_tokens, 0);
}

#[test]
fn what_a_version_computed_is_kept_no_longer_than_the_version_is_served() {
    let mut bench = Bench::new(Config::default());
    let ask = |bench: &mut Bench, weights: Weights| {
        let mut listener = bench.sample(job(weights, prompt(36, 100), 2, 1));
        bench.finish(&mut listener);
        bench.handle.stats().prefix_bytes
    };
    let one = ask(&mut bench, adapter("one"));
    assert!(one > 0);
    assert_eq!(ask(&mut bench, adapter("two")), 2 * one);
    let slot = Arc::clone(&bench.slots[&AdapterName::from("one")]);
    // A candidate that some sessions get takes nothing away; the version that follows does.
    slot.try_out(deployed(&bench.model, 7), 0.5);
    assert_eq!(ask(&mut bench, Weights::Base), 3 * one);
    slot.publish(deployed(&bench.model, 8));
    assert_eq!(ask(&mut bench, adapter("one")), 3 * one);
}
