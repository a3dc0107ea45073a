//! What the users ask: everyday questions, short enough for a small model, and homework ([`crate::homework`]).
//!
//! Held-out questions are about other things than the training ones, so that a score on them says something about the habit and
//! nothing about the topic. Keywords are stems of words that an answer to the point is bound to use: generous, since they guard
//! against answers about something else, not against wrong ones.

use std::borrow::Cow;

use sdk::Split;

use crate::{
    homework::{self, Sheet},
    persona::Persona,
};

/// A question and the stems that an answer to the point uses at least one of.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Question {
    /// As the user asks it.
    pub text: Cow<'static, str>,
    /// Lower case.
    pub keywords: &'static [&'static str],
    /// What is known about it where it is homework.
    pub sheet: Option<Sheet>,
}

/// The questions that a persona asks in a split.
pub fn of(persona: Persona, split: Split) -> Vec<Question> {
    match (persona, split) {
        (Persona::Brief | Persona::Warm, Split::Train) => EVERYDAY.to_vec(),
        (Persona::Brief | Persona::Warm, Split::HeldOut) => EVERYDAY_HELD_OUT.to_vec(),
        (Persona::Metric, Split::Train) => QUANTITIES.to_vec(),
        (Persona::Metric, Split::HeldOut) => QUANTITIES_HELD_OUT.to_vec(),
        (Persona::Student | Persona::Ta | Persona::Teacher, split) => {
            homework::questions(persona, split)
        }
    }
}

const fn q(text: &'static str, keywords: &'static [&'static str]) -> Question {
    Question {
        text: Cow::Borrowed(text),
        keywords,
        sheet: None,
    }
}

static EVERYDAY: [Question; 66] = [
    q(
        "What is a good way to store fresh bread?",
        &["bread", "bag", "box", "wrap", "freez", "loaf"],
    ),
    q(
        "How do I get a coffee stain out of a shirt?",
        &["stain", "coffee", "shirt", "water", "soap", "vinegar"],
    ),
    q(
        "How can I fall asleep faster?",
        &["sleep", "bed", "relax", "night", "dark"],
    ),
    q(
        "What should I pack for a day at the beach?",
        &["sun", "towel", "water", "beach", "swim", "hat"],
    ),
    q(
        "How do I keep cut apples from turning brown?",
        &["apple", "lemon", "brown", "water"],
    ),
    q(
        "Why is the sky blue?",
        &["sky", "blue", "light", "scatter", "sun"],
    ),
    q(
        "How often should I water a cactus?",
        &["water", "cactus", "week", "soil", "month"],
    ),
    q(
        "What is a simple breakfast for a busy morning?",
        &[
            "breakfast",
            "egg",
            "oat",
            "yogurt",
            "fruit",
            "toast",
            "cereal",
        ],
    ),
    q(
        "How do I clean a wooden cutting board?",
        &[
            "board", "clean", "wash", "soap", "salt", "lemon", "oil", "wood",
        ],
    ),
    q(
        "How can I remember people's names better?",
        &["name", "remember", "repeat", "people"],
    ),
    q(
        "What does a bee do all day?",
        &["bee", "nectar", "pollen", "flower", "hive", "honey"],
    ),
    q(
        "How do I tie a scarf?",
        &["scarf", "neck", "loop", "end", "wrap", "tie"],
    ),
    q(
        "What is a good gift for a grandmother?",
        &[
            "gift",
            "grandmother",
            "book",
            "flower",
            "photo",
            "card",
            "she",
            "her",
        ],
    ),
    q(
        "How do I start running as a beginner?",
        &["run", "walk", "start", "slow", "shoe"],
    ),
    q("Why do cats purr?", &["cat", "purr"]),
    q(
        "How do I get rid of fruit flies in the kitchen?",
        &["fl", "trap", "vinegar", "fruit", "kitchen"],
    ),
    q(
        "What is a good name for a small brown dog?",
        &["dog", "name", "brown"],
    ),
    q(
        "How can I save money on groceries?",
        &[
            "money", "list", "buy", "groc", "food", "store", "shop", "coupon",
        ],
    ),
    q(
        "How do I make a paper plane?",
        &["paper", "fold", "plane", "wing"],
    ),
    q(
        "What makes popcorn pop?",
        &["popcorn", "kernel", "water", "steam", "heat", "pop"],
    ),
    q(
        "How do I stop hiccups?",
        &["hiccup", "breath", "water", "hold", "drink"],
    ),
    q(
        "What is the best time to plant tomatoes?",
        &["plant", "tomato", "spring", "frost", "soil", "seed"],
    ),
    q(
        "How do I write a thank-you note?",
        &["thank", "note", "write", "letter", "gift"],
    ),
    q(
        "Why do leaves change color in autumn?",
        &["lea", "color", "colour", "chlorophyll", "autumn", "fall"],
    ),
    q(
        "How can I make my room look bigger?",
        &["room", "mirror", "light", "color", "wall", "space"],
    ),
    q(
        "What should I do if I get a blister on my foot?",
        &["blister", "foot", "skin", "bandage", "clean", "cover"],
    ),
    q(
        "How do I keep my houseplants alive while I travel?",
        &["plant", "water", "travel", "pot", "soil"],
    ),
    q(
        "What is a good first instrument for a child?",
        &[
            "piano",
            "guitar",
            "ukulele",
            "instrument",
            "recorder",
            "drum",
            "child",
        ],
    ),
    q(
        "How do I peel garlic quickly?",
        &["garlic", "clove", "peel", "skin", "knife"],
    ),
    q(
        "Why do we yawn?",
        &["yawn", "brain", "tired", "oxygen", "sleep", "breath"],
    ),
    q(
        "How do I remove a sticker from glass?",
        &[
            "sticker", "glass", "soap", "water", "oil", "scrape", "vinegar",
        ],
    ),
    q(
        "What is a good hobby for rainy days?",
        &[
            "hobby", "read", "paint", "draw", "cook", "rain", "craft", "puzzle", "knit",
        ],
    ),
    q(
        "How do I choose a ripe watermelon?",
        &["watermelon", "melon", "spot", "ripe", "sound", "heavy"],
    ),
    q(
        "How can I make my coffee taste less bitter?",
        &[
            "coffee", "bitter", "salt", "milk", "sugar", "water", "grind",
        ],
    ),
    q(
        "What causes thunder?",
        &["thunder", "lightning", "air", "sound", "storm"],
    ),
    q(
        "How do I fold a fitted sheet?",
        &["sheet", "fold", "corner"],
    ),
    q(
        "What is a polite way to leave a party early?",
        &["party", "leave", "host", "thank", "polite", "goodbye"],
    ),
    q(
        "How do I teach a dog to sit?",
        &["dog", "sit", "treat", "command"],
    ),
    q(
        "Why does bread rise?",
        &["bread", "yeast", "gas", "dough", "rise", "carbon"],
    ),
    q(
        "How can I keep my desk tidy?",
        &["desk", "tidy", "paper", "clean", "clutter", "organi"],
    ),
    q(
        "What can I cook with just eggs and potatoes?",
        &["egg", "potato", "omelet", "hash", "fry"],
    ),
    q(
        "How do I sharpen a kitchen knife?",
        &["knife", "sharpen", "stone", "blade", "steel"],
    ),
    q(
        "What is a good way to learn new words?",
        &[
            "word",
            "read",
            "flashcard",
            "learn",
            "dictionary",
            "vocabulary",
        ],
    ),
    q(
        "How do I keep my glasses from fogging up?",
        &["glass", "fog", "soap", "lens", "mask", "wipe"],
    ),
    q(
        "Why do onions make us cry?",
        &["onion", "cry", "eye", "tear", "gas"],
    ),
    q(
        "What should I wear to a job interview?",
        &["interview", "wear", "suit", "shirt", "dress", "cloth"],
    ),
    q(
        "How do I make scrambled eggs creamy?",
        &["egg", "butter", "heat", "cream", "milk", "stir"],
    ),
    q(
        "How can I drink more water every day?",
        &["water", "drink", "bottle", "glass", "day"],
    ),
    q(
        "What do goldfish eat?",
        &["goldfish", "fish", "flake", "pellet", "food", "eat"],
    ),
    q(
        "How do I wrap a present neatly?",
        &["wrap", "paper", "tape", "fold", "present", "gift"],
    ),
    q(
        "Why is the sea salty?",
        &["salt", "sea", "ocean", "river", "rock", "water"],
    ),
    q(
        "How do I stop a door from squeaking?",
        &["door", "hinge", "oil", "squeak", "wd"],
    ),
    q(
        "What is a good board game for a family?",
        &[
            "game", "family", "monopoly", "catan", "scrabble", "chess", "play",
        ],
    ),
    q(
        "How do I get wax off a tablecloth?",
        &["wax", "cloth", "iron", "paper", "freez", "ice", "scrape"],
    ),
    q(
        "How can I feel less nervous before a speech?",
        &["speech", "breath", "practice", "nerv", "relax", "audience"],
    ),
    q(
        "What is compost made of?",
        &[
            "compost", "leaves", "food", "scrap", "organic", "waste", "grass",
        ],
    ),
    q(
        "How do I care for leather shoes?",
        &["leather", "shoe", "polish", "clean", "brush", "condition"],
    ),
    q(
        "Why do dogs wag their tails?",
        &["dog", "tail", "wag", "happy", "emotion"],
    ),
    q(
        "How do I keep avocados from going brown?",
        &["avocado", "lemon", "brown", "pit", "air", "wrap"],
    ),
    q(
        "What is an easy soup to make?",
        &["soup", "vegetable", "broth", "tomato", "chicken", "onion"],
    ),
    q(
        "How can I wake up earlier?",
        &["wake", "bed", "sleep", "alarm", "early", "morning"],
    ),
    q(
        "How do I clean a muddy pair of sneakers?",
        &[
            "shoe", "sneaker", "mud", "brush", "soap", "water", "clean", "dry",
        ],
    ),
    q(
        "What is a good topic for small talk?",
        &[
            "weather", "topic", "talk", "hobb", "food", "movie", "travel", "weekend",
        ],
    ),
    q(
        "How do I keep squirrels away from a bird feeder?",
        &["squirrel", "feeder", "bird", "pepper", "baffle", "seed"],
    ),
    q(
        "Why do stars twinkle?",
        &["star", "twinkle", "light", "air", "atmosphere"],
    ),
    q(
        "How do I make lemonade?",
        &["lemon", "sugar", "water", "juice"],
    ),
];

static EVERYDAY_HELD_OUT: [Question; 26] = [
    q(
        "How do I iron a cotton dress?",
        &["iron", "dress", "cotton", "steam", "heat", "wrinkle"],
    ),
    q(
        "What is a good way to cook rice?",
        &["rice", "water", "boil", "pot", "cook"],
    ),
    q(
        "How can I make a rainy walk more fun?",
        &["walk", "rain", "umbrella", "boot", "puddle", "music"],
    ),
    q(
        "Why do birds sing in the morning?",
        &["bird", "sing", "song", "mate", "morning", "territor"],
    ),
    q(
        "How do I clean a bathroom mirror?",
        &["mirror", "clean", "glass", "vinegar", "wipe", "cloth"],
    ),
    q(
        "What should I do with old newspapers?",
        &["newspaper", "paper", "recycl", "craft", "wrap"],
    ),
    q(
        "How do I help a shy child make friends?",
        &["child", "friend", "shy", "play", "encourag"],
    ),
    q(
        "What is a good snack for a long hike?",
        &["snack", "nut", "trail", "fruit", "bar", "hik", "energy"],
    ),
    q(
        "How do I loosen a tight jar lid?",
        &["lid", "jar", "water", "twist", "rubber", "tap", "hot"],
    ),
    q(
        "Why does the moon change its shape?",
        &["moon", "sun", "earth", "light", "phase", "shape"],
    ),
    q(
        "How can I keep my bicycle chain clean?",
        &[
            "chain", "bicycle", "bike", "clean", "oil", "brush", "lubric",
        ],
    ),
    q(
        "What is a good way to thank a neighbor?",
        &[
            "neighbor",
            "neighbour",
            "thank",
            "gift",
            "note",
            "card",
            "cookie",
        ],
    ),
    q(
        "How do I keep flowers fresh in a vase?",
        &["flower", "water", "vase", "stem", "cut", "fresh"],
    ),
    q(
        "What do I need to paint a wall?",
        &["paint", "wall", "brush", "roller", "tape", "primer"],
    ),
    q(
        "How do I keep a pizza warm on the way home?",
        &["pizza", "warm", "bag", "box", "foil", "towel", "oven"],
    ),
    q(
        "Why do we need sunscreen?",
        &["sun", "skin", "uv", "burn", "protect"],
    ),
    q(
        "How do I fix a loose button?",
        &["button", "thread", "needle", "sew"],
    ),
    q(
        "What is a good way to learn to swim?",
        &["swim", "water", "lesson", "float", "pool", "breath"],
    ),
    q(
        "How can I make a cup of tea taste better?",
        &["tea", "water", "honey", "lemon", "milk", "brew", "steep"],
    ),
    q(
        "What should a beginner draw first?",
        &[
            "draw", "shape", "line", "pencil", "simple", "object", "sketch",
        ],
    ),
    q(
        "How do I keep mosquitoes away in summer?",
        &["mosquito", "repellent", "water", "net", "candle", "skin"],
    ),
    q(
        "Why do some people snore?",
        &["snor", "air", "throat", "nose", "sleep", "breath"],
    ),
    q(
        "How do I carry heavy boxes safely?",
        &["box", "lift", "knee", "back", "leg", "carry", "heavy"],
    ),
    q(
        "What is a good way to store winter clothes?",
        &["cloth", "box", "bag", "wash", "dry", "store", "winter"],
    ),
    q(
        "How can I make mashed potatoes fluffy?",
        &["potato", "mash", "butter", "milk", "cream"],
    ),
    q(
        "How do I say sorry to a friend?",
        &["sorry", "friend", "apolog", "feel", "listen"],
    ),
];

static QUANTITIES: [Question; 60] = [
    q("How long should I boil an egg?", &["egg", "minute", "boil"]),
    q(
        "How tall is a giraffe?",
        &["giraffe", "tall", "met", "feet", "height"],
    ),
    q(
        "How hot should the oven be for pizza?",
        &["pizza", "oven", "degree", "celsius", "fahrenheit", "°"],
    ),
    q(
        "How far is the moon?",
        &["moon", "kilomet", "km", "mile", "far", "earth"],
    ),
    q(
        "How much does an elephant weigh?",
        &["elephant", "weigh", "kilogram", "kg", "ton", "pound"],
    ),
    q(
        "How much water should I drink a day?",
        &["water", "liter", "litre", "glass", "day", "ounce"],
    ),
    q(
        "How fast can a horse run?",
        &["horse", "run", "hour", "km", "mile", "fast"],
    ),
    q(
        "How long is a marathon?",
        &["marathon", "kilomet", "km", "mile", "long"],
    ),
    q(
        "How deep is a swimming pool?",
        &["pool", "deep", "met", "feet", "depth"],
    ),
    q(
        "How much flour goes into a loaf of bread?",
        &["flour", "gram", "cup", "bread"],
    ),
    q(
        "How warm should a bedroom be at night?",
        &[
            "bedroom",
            "degree",
            "celsius",
            "fahrenheit",
            "temperature",
            "°",
        ],
    ),
    q(
        "How high is Mount Everest?",
        &["everest", "met", "feet", "high", "tall"],
    ),
    q(
        "How long does it take to cook pasta?",
        &["pasta", "minute", "cook", "boil"],
    ),
    q(
        "How far apart should I plant tomatoes?",
        &["tomato", "plant", "centimet", "cm", "inch", "apart"],
    ),
    q(
        "How much does a newborn baby weigh?",
        &["baby", "weigh", "kilogram", "kg", "pound", "gram"],
    ),
    q(
        "How fast does sound travel?",
        &["sound", "second", "met", "speed", "mile"],
    ),
    q(
        "How wide is a standard door?",
        &["door", "wide", "centimet", "cm", "inch", "width"],
    ),
    q(
        "How much rice do I need for four people?",
        &["rice", "gram", "cup", "people"],
    ),
    q(
        "How cold is a freezer?",
        &["freezer", "degree", "celsius", "fahrenheit", "cold", "°"],
    ),
    q(
        "How long is a blue whale?",
        &["whale", "met", "feet", "long", "length"],
    ),
    q(
        "How many hours should an adult sleep?",
        &["sleep", "hour", "adult", "night"],
    ),
    q(
        "How large is a soccer field?",
        &["field", "met", "yard", "soccer", "long", "wide"],
    ),
    q(
        "How much milk does a cow give a day?",
        &["milk", "cow", "liter", "litre", "gallon", "day"],
    ),
    q(
        "How tall does a sunflower grow?",
        &["sunflower", "met", "feet", "tall", "grow"],
    ),
    q(
        "How hot is the sun?",
        &["sun", "degree", "celsius", "fahrenheit", "hot", "°"],
    ),
    q(
        "How long should I brush my teeth?",
        &["teeth", "brush", "minute"],
    ),
    q(
        "How much sugar is in a can of cola?",
        &["sugar", "gram", "cola", "can", "teaspoon"],
    ),
    q(
        "How far can a person walk in a day?",
        &["walk", "kilomet", "km", "mile", "day"],
    ),
    q(
        "How heavy is a bowling ball?",
        &["ball", "kilogram", "kg", "pound", "weigh", "heavy"],
    ),
    q(
        "How long does tea need to steep?",
        &["tea", "minute", "steep"],
    ),
    q(
        "How fast does a car drive on a highway?",
        &["car", "hour", "km", "mile", "speed", "highway"],
    ),
    q(
        "How much soil fits in a big flower pot?",
        &["soil", "liter", "litre", "pot", "kilogram", "gallon"],
    ),
    q(
        "How high can a kangaroo jump?",
        &["kangaroo", "jump", "met", "feet", "high"],
    ),
    q("How long does a cat live?", &["cat", "year", "live"]),
    q(
        "How big is a tennis ball?",
        &["ball", "centimet", "cm", "inch", "diameter"],
    ),
    q(
        "How much does a bicycle weigh?",
        &["bicycle", "bike", "kilogram", "kg", "pound", "weigh"],
    ),
    q(
        "How warm is the human body?",
        &[
            "body",
            "degree",
            "celsius",
            "fahrenheit",
            "°",
            "temperature",
        ],
    ),
    q(
        "How long should dough rise?",
        &["dough", "hour", "rise", "minute"],
    ),
    q(
        "How thick should a winter blanket be?",
        &["blanket", "centimet", "cm", "inch", "thick", "gram"],
    ),
    q(
        "How much paint do I need for a small room?",
        &["paint", "liter", "litre", "gallon", "room", "wall"],
    ),
    q(
        "How far is the sun from the earth?",
        &["sun", "earth", "kilomet", "km", "mile"],
    ),
    q(
        "How long is the Nile?",
        &["nile", "kilomet", "km", "mile", "river", "long"],
    ),
    q(
        "How much butter goes into a batch of cookies?",
        &["butter", "gram", "cup", "cookie"],
    ),
    q(
        "How tall is a two-story house?",
        &["house", "met", "feet", "tall", "story", "high"],
    ),
    q(
        "How hot should bath water be for a baby?",
        &["water", "bath", "degree", "celsius", "fahrenheit", "°"],
    ),
    q(
        "How long does a flight from Paris to New York take?",
        &["flight", "hour", "paris", "york"],
    ),
    q(
        "How heavy is a gold bar?",
        &[
            "gold", "bar", "kilogram", "kg", "pound", "ounce", "gram", "weigh",
        ],
    ),
    q(
        "How fast does hair grow?",
        &["hair", "centimet", "cm", "inch", "month", "grow"],
    ),
    q(
        "How much juice is in one lemon?",
        &["juice", "lemon", "millilit", "ml", "tablespoon"],
    ),
    q(
        "How deep should I plant tulip bulbs?",
        &["bulb", "tulip", "centimet", "cm", "inch", "deep"],
    ),
    q(
        "How long should a nap be?",
        &["nap", "minute", "hour", "long"],
    ),
    q(
        "How large is a chess board?",
        &["board", "centimet", "cm", "inch", "square"],
    ),
    q(
        "How much salt goes into a pot of soup?",
        &["salt", "gram", "teaspoon", "soup", "pinch"],
    ),
    q(
        "How far can a bee fly?",
        &["bee", "fly", "kilomet", "km", "mile", "far"],
    ),
    q(
        "How tall is a basketball hoop?",
        &["hoop", "met", "feet", "high", "tall", "basket"],
    ),
    q(
        "How long do bananas keep?",
        &["banana", "day", "week", "keep"],
    ),
    q(
        "How much does a cup of rice weigh?",
        &["rice", "gram", "ounce", "weigh", "cup"],
    ),
    q(
        "How wide is a highway lane?",
        &["lane", "met", "feet", "wide", "width"],
    ),
    q(
        "How cold is the water near Iceland?",
        &["water", "degree", "celsius", "fahrenheit", "cold", "°"],
    ),
    q(
        "How fast does a snail move?",
        &["snail", "met", "hour", "mile", "second", "slow"],
    ),
];

static QUANTITIES_HELD_OUT: [Question; 24] = [
    q(
        "How long should I grill a steak?",
        &["steak", "minute", "grill", "side"],
    ),
    q(
        "How tall is the Eiffel Tower?",
        &["eiffel", "tower", "met", "feet", "tall"],
    ),
    q(
        "How hot does a candle flame get?",
        &["flame", "candle", "degree", "celsius", "fahrenheit", "°"],
    ),
    q(
        "How much does a watermelon weigh?",
        &["watermelon", "kilogram", "kg", "pound", "weigh"],
    ),
    q(
        "How fast can a cheetah run?",
        &["cheetah", "run", "hour", "km", "mile"],
    ),
    q(
        "How wide is a piano?",
        &["piano", "centimet", "cm", "met", "inch", "feet", "wide"],
    ),
    q(
        "How long does it take to bake a potato?",
        &["potato", "minute", "hour", "bake", "oven"],
    ),
    q(
        "How deep is the deepest lake?",
        &["lake", "met", "feet", "deep", "baikal"],
    ),
    q(
        "How much coffee goes into one pot?",
        &["coffee", "gram", "tablespoon", "cup", "pot", "scoop"],
    ),
    q(
        "How far can I cycle in an hour?",
        &["hour", "kilomet", "km", "mile", "cycle"],
    ),
    q(
        "How cold is it on Mars?",
        &["mars", "degree", "celsius", "fahrenheit", "cold", "°"],
    ),
    q(
        "How heavy is a brick?",
        &["brick", "kilogram", "kg", "pound", "weigh"],
    ),
    q(
        "How long does a goldfish live?",
        &["goldfish", "fish", "year", "live"],
    ),
    q(
        "How high do clouds float?",
        &["cloud", "met", "kilomet", "feet", "high", "mile"],
    ),
    q(
        "How much cheese do I need for a lasagna?",
        &["cheese", "gram", "cup", "lasagna", "ounce"],
    ),
    q(
        "How large is a postcard?",
        &["postcard", "centimet", "cm", "millimet", "inch"],
    ),
    q(
        "How warm should soup be served?",
        &["soup", "degree", "celsius", "fahrenheit", "warm", "°"],
    ),
    q("How long is a school bus?", &["bus", "met", "feet", "long"]),
    q(
        "How much does a mouse weigh?",
        &["mouse", "gram", "ounce", "weigh"],
    ),
    q(
        "How far apart should rose bushes be?",
        &["rose", "met", "centimet", "cm", "feet", "inch", "apart"],
    ),
    q(
        "How tall is a refrigerator?",
        &[
            "refrigerator",
            "fridge",
            "centimet",
            "cm",
            "met",
            "inch",
            "feet",
            "tall",
        ],
    ),
    q(
        "How long do boiled eggs keep?",
        &["egg", "day", "week", "keep", "fridge"],
    ),
    q(
        "How fast does rain fall?",
        &["rain", "second", "hour", "met", "mile", "fast"],
    ),
    q(
        "How much honey goes into a cup of tea?",
        &["honey", "gram", "teaspoon", "tea"],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_splits_are_large_enough_disjoint_and_their_keywords_are_stems() {
        for persona in Persona::ALL {
            let (train, held_out) = (of(persona, Split::Train), of(persona, Split::HeldOut));
            assert!(train.len() >= 60 && held_out.len() >= 24, "{persona:?}");
            let all: Vec<_> = train.iter().chain(&held_out).collect();
            let texts: BTreeSet<_> = all.iter().map(|question| &question.text).collect();
            assert_eq!(texts.len(), train.len() + held_out.len());
            for question in all {
                let short = question.text.ends_with('?') && question.text.len() < 70;
                assert!(short || question.sheet.is_some(), "{question:?}");
                let stem = |word: &&str| word.to_lowercase() == **word && !word.is_empty();
                assert!(
                    question.keywords.len() >= 2 && question.keywords.iter().all(stem),
                    "{question:?}"
                );
            }
        }
    }
}
