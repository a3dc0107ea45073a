//! What worlds are full of. Of every four words of a list, the fourth is for held-out requests ([`crate::draw`]).

/// Titles of events.
pub(super) const EVENTS: [&str; 20] = [
    "Dentist",
    "Yoga class",
    "Team lunch",
    "Piano lesson",
    "Budget review",
    "Car service",
    "Book club",
    "Eye test",
    "Tennis match",
    "Project kickoff",
    "Haircut",
    "Choir rehearsal",
    "Parent evening",
    "Garden tour",
    "Job interview",
    "Chess club",
    "Physio",
    "Language class",
    "House viewing",
    "Swim training",
];

/// First names.
pub(super) const PEOPLE: [&str; 20] = [
    "Anna", "Ben", "Carla", "David", "Elena", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Kim",
    "Laura", "Marco", "Nina", "Omar", "Paula", "Robin", "Sara", "Tom", "Vera",
];

/// Last names.
pub(super) const SURNAMES: [&str; 12] = [
    "Adler", "Berg", "Costa", "Dahl", "Evans", "Fuchs", "Gomez", "Holm", "Ito", "Jansen", "Klein",
    "Lund",
];

/// Short messages.
pub(super) const MESSAGES: [&str; 16] = [
    "I am late",
    "The train is full",
    "Dinner is ready",
    "See you at noon",
    "The keys are inside",
    "Call me tonight",
    "The shop is closed",
    "I found your hat",
    "Bring an umbrella",
    "The meeting moved",
    "Happy birthday",
    "We are at gate nine",
    "The parcel is here",
    "Please buy bread",
    "The film was great",
    "Wait at the bridge",
];

/// Folders.
pub(super) const FOLDERS: [&str; 12] = [
    "notes", "letters", "photos", "recipes", "reports", "music", "work", "school", "garden",
    "travel", "house", "taxes",
];

/// Names of files without an ending.
pub(super) const FILES: [&str; 20] = [
    "plan", "list", "draft", "summary", "ideas", "budget", "agenda", "letter", "report", "menu",
    "index", "journal", "outline", "guests", "prices", "lyrics", "hours", "tasks", "goals",
    "contract",
];

/// Endings of files that nobody needs.
pub(super) const ENDINGS: [&str; 8] = ["tmp", "bak", "old", "log", "zip", "cache", "orig", "part"];

/// One line of text.
pub(super) const LINES: [&str; 16] = [
    "buy new lamps",
    "meet at the lake",
    "water the plants",
    "paint the fence",
    "call the bank",
    "two eggs and milk",
    "check the brakes",
    "send the photos",
    "return the book",
    "sweep the yard",
    "order more ink",
    "fix the window",
    "wash the car",
    "count the chairs",
    "clean the filter",
    "sort the letters",
];

/// What a shop sells.
pub(super) const PRODUCTS: [&str; 16] = [
    "lamp", "kettle", "blanket", "notebook", "backpack", "teapot", "cushion", "candle", "basket",
    "mirror", "bottle", "scarf", "toaster", "clock", "vase", "helmet",
];

/// Colours, to tell products of a kind apart.
pub(super) const COLOURS: [&str; 8] = [
    "red", "blue", "green", "black", "white", "yellow", "grey", "brown",
];

/// Rooms.
pub(super) const ROOMS: [&str; 12] = [
    "kitchen", "bedroom", "hall", "office", "bathroom", "attic", "cellar", "garage", "nursery",
    "library", "studio", "pantry",
];

/// Doors.
pub(super) const DOORS: [&str; 8] = [
    "front", "back", "side", "balcony", "cellar", "garage", "terrace", "roof",
];

/// Accounts.
pub(super) const ACCOUNTS: [&str; 8] = [
    "savings",
    "checking",
    "holiday",
    "household",
    "emergency",
    "business",
    "school",
    "joint",
];

/// Whom bills are from.
pub(super) const PAYEES: [&str; 12] = [
    "electricity",
    "water",
    "phone",
    "internet",
    "gym",
    "garage",
    "insurance",
    "daycare",
    "heating",
    "newspaper",
    "laundry",
    "dentist",
];

/// Things to do.
pub(super) const CHORES: [&str; 16] = [
    "buy milk",
    "call grandma",
    "pay the fine",
    "mow the lawn",
    "pack the bags",
    "book a table",
    "feed the cat",
    "renew the passport",
    "print the tickets",
    "clean the oven",
    "charge the camera",
    "write to Lena",
    "sew the button",
    "defrost the fridge",
    "order firewood",
    "return the drill",
];

/// Lists of things to do.
pub(super) const LISTS: [&str; 8] = [
    "home", "work", "errands", "garden", "family", "travel", "health", "school",
];

/// Names under which numbers are saved.
pub(super) const LABELS: [&str; 16] = [
    "trip", "fence", "rope", "cable", "total", "parcel", "flour", "shift", "race", "shelf",
    "border", "nap", "luggage", "curtain", "delay", "ribbon",
];
