//! The words that pages are filled with. Every list has enough of them that no two tasks of a family are alike.

pub(super) const NAMES: [&str; 32] = [
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Kira",
    "Liam", "Mona", "Nils", "Olga", "Paul", "Quinn", "Rosa", "Simon", "Tara", "Ugo", "Vera", "Wim",
    "Xenia", "Yusuf", "Zoe", "Amir", "Bella", "Chen", "Dora", "Elias", "Fatma",
];

pub(super) const SURNAMES: [&str; 20] = [
    "Berg", "Costa", "Dahl", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jansen", "Kaya",
    "Lopez", "Meyer", "Novak", "Olsen", "Petrov", "Rossi", "Silva", "Tanaka", "Weber", "Young",
];

pub(super) const CITIES: [&str; 24] = [
    "Oslo", "Lisbon", "Vienna", "Prague", "Dublin", "Athens", "Madrid", "Rome", "Berlin", "Paris",
    "London", "Warsaw", "Helsinki", "Riga", "Sofia", "Zagreb", "Bern", "Lyon", "Porto", "Krakow",
    "Ghent", "Turin", "Malmo", "Cork",
];

pub(super) const THINGS: [&str; 40] = [
    "lamp", "chair", "table", "pen", "notebook", "mug", "bag", "clock", "mirror", "carpet",
    "pillow", "blanket", "candle", "vase", "shelf", "basket", "bottle", "plate", "spoon", "kettle",
    "towel", "brush", "umbrella", "watch", "scarf", "hat", "belt", "wallet", "camera", "speaker",
    "keyboard", "mouse", "cable", "battery", "torch", "tent", "rope", "map", "stove", "radio",
];

pub(super) const KINDS: [&str; 16] = [
    "Red", "Blue", "Green", "White", "Black", "Small", "Large", "Round", "Wooden", "Steel",
    "Glass", "Paper", "Soft", "Light", "Old", "New",
];

pub(super) const TOPICS: [&str; 28] = [
    "Holiday", "Meeting", "Invoice", "Birthday", "Contract", "Lunch", "Report", "Budget",
    "Concert", "Garden", "Travel", "Health", "School", "Music", "Sports", "Kitchen", "Weather",
    "Cinema", "Library", "Market", "Museum", "Office", "Parking", "Repair", "Survey", "Theatre",
    "Training", "Workshop",
];

pub(super) const SETTINGS: [&str; 20] = [
    "Dark mode",
    "Notifications",
    "Sounds",
    "Location",
    "Automatic updates",
    "Spell check",
    "Large text",
    "Subtitles",
    "Vibration",
    "Backup",
    "Bluetooth",
    "Autoplay",
    "Data saver",
    "Night light",
    "Captions",
    "Private mode",
    "Read receipts",
    "Screen lock",
    "Two columns",
    "Weekly summary",
];

pub(super) const FRUITS: [&str; 24] = [
    "apple",
    "pear",
    "plum",
    "cherry",
    "lemon",
    "orange",
    "grape",
    "melon",
    "peach",
    "banana",
    "mango",
    "kiwi",
    "fig",
    "date",
    "olive",
    "lime",
    "apricot",
    "quince",
    "papaya",
    "guava",
    "raspberry",
    "blueberry",
    "currant",
    "coconut",
];

pub(super) const TOOLS: [&str; 16] = [
    "hammer",
    "saw",
    "drill",
    "pliers",
    "wrench",
    "chisel",
    "file",
    "axe",
    "shovel",
    "rake",
    "ladder",
    "bucket",
    "level",
    "clamp",
    "screwdriver",
    "sander",
];

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const LETTERS: [&str; 20] = [
    "A", "B", "C", "D", "E", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W",
    "X",
];
