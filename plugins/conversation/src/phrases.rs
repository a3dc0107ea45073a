//! What the scripted users say about a reply. Not the questions, and not the rule behind a complaint.
//!
//! A complaint says how *this* reply should have been different, first vaguely, then more concretely; none states a rule up
//! front. Each kind has six vague ones and six concrete ones.

use crate::persona::Violation;

/// How a conversation begins; the question follows.
pub const OPENERS: [&str; 10] = [
    "",
    "",
    "",
    "Hi! ",
    "Hello. ",
    "Quick question: ",
    "Hey, ",
    "Good morning! ",
    "I was wondering: ",
    "One thing: ",
];

/// What a satisfied user says.
pub const THANKS: [&str; 24] = [
    "Thanks, that's perfect.",
    "Great, thank you!",
    "That's exactly what I wanted.",
    "Perfect, thanks.",
    "Lovely, just what I needed.",
    "Thank you, I like that answer.",
    "Yes, that helps a lot.",
    "Super, thanks a lot.",
    "Nice, that's a good answer.",
    "Wonderful, that is how I like it.",
    "Good, got it. Thanks.",
    "Brilliant, that was just right.",
    "Ah, very good. Thank you.",
    "That works for me, thanks!",
    "Spot on.",
    "Excellent, thank you so much.",
    "I really like how you put that.",
    "Great answer.",
    "Thanks! Please keep answering like that.",
    "That was really helpful.",
    "Cool, thank you.",
    "Much appreciated, that's great.",
    "Now that is a nice answer.",
    "Just right, thank you.",
];

/// How a user goes on to the next question after a thank-you.
pub const NEXT: [&str; 10] = [
    "Next: ",
    "Another question: ",
    "Next question: ",
    "And now: ",
    "One more: ",
    "Also: ",
    "Now tell me: ",
    "Something else: ",
    "I have another one: ",
    "Then: ",
];

/// How a user goes on after a complaint.
pub const MOVING_ON: [&str; 8] = [
    "Anyway, next question: ",
    "Never mind. ",
    "Let's try another one: ",
    "Well, something else: ",
    "Moving on: ",
    "Whatever. Next: ",
    "Let me ask something else: ",
    "Another question then: ",
];

/// How a user asks for the same answer again.
pub const AGAIN: [&str; 8] = [
    "Could you try that one again?",
    "Please answer that again.",
    "Can you do that once more?",
    "Try again, please.",
    "Can I have that answer again?",
    "Give it another go.",
    "Once more, please?",
    "Would you redo that?",
];

/// How somebody else takes over, before the question.
pub const HANDOVERS: [&str; 4] = [
    "Hello, somebody else is at the keyboard now. ",
    "Hi, this is another person; we share this account. ",
    "I take over from here, hello! ",
    "Now it's my turn, I am someone else. ",
];

/// The complaints about a violation: vague ones, and concrete ones.
pub fn complaints(violation: Violation) -> [&'static [&'static str]; 2] {
    match violation {
        Violation::OffTopic => [&OFF_TOPIC_VAGUE, &OFF_TOPIC],
        Violation::Repetition => [&REPETITION_VAGUE, &REPETITION],
        Violation::Unfinished => [&UNFINISHED_VAGUE, &UNFINISHED],
        Violation::Markup => [&MARKUP_VAGUE, &MARKUP],
        Violation::TooLong => [&TOO_LONG_VAGUE, &TOO_LONG],
        Violation::Cold => [&COLD_VAGUE, &COLD],
        Violation::NoEncouragement => [&NO_ENCOURAGEMENT_VAGUE, &NO_ENCOURAGEMENT],
        Violation::NoNumber => [&NO_NUMBER_VAGUE, &NO_NUMBER],
        Violation::Imperial => [&IMPERIAL_VAGUE, &IMPERIAL],
        Violation::Labels => [&LABELS_VAGUE, &LABELS],
        Violation::Vague => [&VAGUE_VAGUE, &VAGUE],
        Violation::TooShort => [&TOO_SHORT_VAGUE, &TOO_SHORT],
        Violation::WrongNumber => [&WRONG_NUMBER_VAGUE, &WRONG_NUMBER],
    }
}

const OFF_TOPIC_VAGUE: [&str; 6] = [
    "Hm, that is not what I asked.",
    "I don't see what that has to do with my question.",
    "That doesn't help me at all.",
    "No, that is about something else.",
    "You didn't answer my question.",
    "That makes no sense to me.",
];
const OFF_TOPIC: [&str; 6] = [
    "That was not about my question. I wanted an answer to what I asked.",
    "Wrong subject. Please stick to what I asked about.",
    "You missed the point; talk about the thing in my question.",
    "I asked something simple and you did not answer it. Answer the question itself.",
    "This is off topic. I need an answer to my actual question.",
    "No, you should have answered the question that I asked.",
];

const REPETITION_VAGUE: [&str; 6] = [
    "You sound like a broken record.",
    "Didn't you just say that?",
    "I have read that line already.",
    "That goes round in circles.",
    "Why does it say the same thing over and over?",
    "Hm, I feel like I read the same thing many times.",
];
const REPETITION: [&str; 6] = [
    "You repeated yourself. Once would have been enough.",
    "The same sentence came up again and again; say it one time.",
    "Please don't say the same thing twice.",
    "Too many repeats. Each point needs to come up only once.",
    "You wrote the same words several times, please stop repeating.",
    "It kept repeating. I want every thing said only once.",
];

const UNFINISHED_VAGUE: [&str; 6] = [
    "And then? It just stops.",
    "Wait, where is the rest?",
    "That ends in the middle.",
    "Hm, you never got to the end.",
    "It breaks off there.",
    "That's cut off.",
];
const UNFINISHED: [&str; 6] = [
    "Your answer stops in the middle of a sentence. It should have been short enough to finish.",
    "It was cut off before the end; say less and finish it.",
    "You ran out of space. Please come to an end sooner.",
    "The last sentence is missing its end. A complete, shorter answer would be better.",
    "You should have finished your answer instead of going on until it was cut off.",
    "It broke off. Better to write less and bring it to an end.",
];

const MARKUP_VAGUE: [&str; 6] = [
    "That looks messy on my screen.",
    "Ugh, what are all those symbols?",
    "That looks like a manual.",
    "Hm, the way it's laid out is hard on my eyes.",
    "My phone shows a lot of odd signs in that.",
    "It looks like a slide deck, not like an answer.",
];
const MARKUP: [&str; 6] = [
    "The bullet points and stars don't show well here. Plain text would have been nicer.",
    "I didn't need a list, just a plain sentence.",
    "Please, no lists or bold words, just write it normally.",
    "Those numbers and headings are too much. You could have just said it in plain words.",
    "Leave out the formatting. Ordinary text is fine.",
    "A list is not what I wanted; simple running text would have been right.",
];

const TOO_LONG_VAGUE: [&str; 6] = [
    "That's a lot to read.",
    "Phew, so much text.",
    "I lost track halfway through.",
    "I didn't ask for an essay.",
    "I don't have time for all that.",
    "That goes on and on.",
];
const TOO_LONG: [&str; 6] = [
    "Too long. One or two sentences would have been enough.",
    "Can't you say that in a sentence or two?",
    "I only needed the short version, two sentences at most.",
    "Much too long for such a small question, just tell me the main point in a sentence or two.",
    "You could have stopped after the second sentence.",
    "Please keep it short. I only read the first two sentences.",
];

const COLD_VAGUE: [&str; 6] = [
    "That sounds like a machine.",
    "Hm, that came across as rather cold.",
    "It feels like talking to a wall.",
    "That's so dry.",
    "Not very friendly, was it?",
    "You sound bored with me.",
];
const COLD: [&str; 6] = [
    "You could have said something kind to me first.",
    "A friendly word would have been nice, like being glad that I asked.",
    "It reads like a textbook. Talk to me warmly, like a friend.",
    "I would have liked a kinder tone and a warm word.",
    "Be a bit nicer to me, I'm a person and not a search box.",
    "Please sound friendly and happy to help, not like a dictionary.",
];

const NO_ENCOURAGEMENT_VAGUE: [&str; 6] = [
    "Now I feel a bit alone with it.",
    "Hm, that leaves me with little confidence.",
    "And now I'm supposed to manage that?",
    "I'm not sure I can do it.",
    "That ends rather flat.",
    "It doesn't make me feel like trying.",
];
const NO_ENCOURAGEMENT: [&str; 6] = [
    "You could have cheered me on a little at the end.",
    "A word of encouragement at the end would have helped me.",
    "You just stopped. Tell me that I can do it!",
    "I'd have liked you to wish me luck at the end.",
    "It needed an encouraging last sentence.",
    "Finish by telling me that I'll manage, that would be nice.",
];

const NO_NUMBER_VAGUE: [&str; 6] = [
    "So how much is it, then?",
    "That is too vague for me.",
    "I still don't know.",
    "I have to search for the answer in there.",
    "Get to the point.",
    "Hm, and what does that mean exactly?",
];
const NO_NUMBER: [&str; 6] = [
    "I wanted a number right at the start.",
    "You should have begun with the figure.",
    "Tell me the number first and explain afterwards.",
    "Where is the number? It should be the first thing you say.",
    "Start with the exact value, the rest can come later.",
    "Just open with the number next to its unit.",
];

const IMPERIAL_VAGUE: [&str; 6] = [
    "I can't picture that in those units.",
    "Now I have to convert it.",
    "Those units mean nothing to me.",
    "Hm, nobody measures like that here.",
    "My ruler doesn't have those.",
    "I don't know what that is over here in Europe.",
];
const IMPERIAL: [&str; 6] = [
    "Please say that in metric units, like meters or kilograms.",
    "I need centimeters and degrees Celsius, not the American units.",
    "That should have been in metric.",
    "Use kilometers, liters and grams for me.",
    "No feet or pounds please, I think in meters and kilos.",
    "I would have needed the metric value instead.",
];

const LABELS_VAGUE: [&str; 6] = [
    "My teacher will notice who wrote that.",
    "I would never hand in something like this.",
    "Nobody in my class writes like that.",
    "Hm, that looks generated.",
    "That doesn't sound like me at all.",
    "It is obvious that no student wrote it.",
];
const LABELS: [&str; 6] = [
    "Leave out the labels like \"Step 1\" or \"Final answer\", just write it down.",
    "No step labels please; a student writes one or two normal sentences.",
    "I don't want headings for every step. Simply say how you get there.",
    "Words like \"solution\" and \"explanation\" in front of it give it away, drop them.",
    "Write it as I would say it, without numbered steps and announcements.",
    "Take out the step by step part, plain sentences would have been right.",
];

const VAGUE_VAGUE: [&str; 6] = [
    "That could stand under any homework.",
    "And what is the student supposed to learn from that?",
    "The student still won't know what happened.",
    "That is not much of a feedback.",
    "Hm, did you read what the student wrote?",
    "I miss something in there.",
];
const VAGUE: [&str; 6] = [
    "Please name the number that the student got wrong.",
    "The feedback should say which result is the mistake, and what it should be.",
    "Be specific: point at the wrong number in the student's work.",
    "You did not mention the student's own wrong result. Quote it.",
    "Say exactly where the calculation went wrong, with the number that is there.",
    "I want the mistake itself in the feedback, not just that there is one.",
];

const TOO_SHORT_VAGUE: [&str; 6] = [
    "Is that all?",
    "I expected a little more.",
    "My pupils read these comments carefully, you know.",
    "That looks as if nobody had taken the time.",
    "Hm, that is a bit thin.",
    "The parents will think that I was in a hurry.",
];
const TOO_SHORT: [&str; 6] = [
    "The comment should be longer, three sentences at least.",
    "Please go into more detail about what the pupil did.",
    "Write some more: what was done, how, and what comes next.",
    "A few more sentences about the pupil's work would have been right.",
    "I like comments in detail, one or two sentences are not enough.",
    "Say something about each step of the pupil's calculation, in full sentences.",
];

const WRONG_NUMBER_VAGUE: [&str; 6] = [
    "Are you sure about the numbers?",
    "I don't think that adds up.",
    "Did you calculate that again?",
    "Hm, something about the result is off.",
    "I got something else.",
    "That cannot be right.",
];
const WRONG_NUMBER: [&str; 6] = [
    "The right result is missing. Please calculate it again and say it clearly.",
    "The number is wrong; multiply first and then look at the rest.",
    "Your result does not fit the problem. I need the correct number in it.",
    "Check the calculation: the correct result has to be in the text.",
    "You should have given the correct result, and only that one.",
    "The homework's correct number must be in there, and yours is another.",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_violation_has_twelve_different_complaints() {
        use Violation::{
            Cold, Imperial, Labels, Markup, NoEncouragement, NoNumber, OffTopic, Repetition,
            TooLong, TooShort, Unfinished, Vague, WrongNumber,
        };
        let all = [
            OffTopic,
            Repetition,
            Unfinished,
            Markup,
            TooLong,
            Cold,
            NoEncouragement,
            NoNumber,
            Imperial,
            Labels,
            Vague,
            TooShort,
            WrongNumber,
        ];
        let mut seen: BTreeSet<_> = THANKS.into_iter().collect();
        for violation in all {
            let phrases: Vec<_> = complaints(violation).concat();
            assert!(phrases.len() >= 12, "{violation:?}");
            assert!(
                phrases.into_iter().all(|phrase| seen.insert(phrase)),
                "{violation:?}"
            );
        }
    }
}
