//! Prices, carts and orders.

use serde_json::json;

use super::words::{COLOURS, PRODUCTS};
use crate::{
    apis::{
        World,
        shop::{Product, Shop},
    },
    draw::Draw,
    plan::Plan,
};

/// A shop with five products of different prices; the first is what the task is about.
fn shop(draw: &mut Draw) -> (Shop, Product) {
    let kind = draw.noun(&PRODUCTS);
    let kinds = draw.others(&PRODUCTS, &[kind], 4);
    let base = draw.whole(10, 40);
    let product = |(place, kind): (i32, &str), draw: &mut Draw| Product {
        id: format!("P{}", base + 9 * place),
        name: format!("{} {kind}", draw.pick(&COLOURS)),
        price: draw.whole(3, 9) + 10 * place,
        stock: draw.whole(12, 20),
    };
    let kinds = (1..).zip([kind].into_iter().chain(kinds));
    let all: Vec<_> = kinds.map(|kind| product(kind, draw)).collect();
    let mut first = all[0].clone();
    let mut products = draw.shuffled(all);
    // The price must not tell the place: the one in question gets one of its own.
    first.price = draw.whole(61, 99);
    for product in products.iter_mut().filter(|product| product.id == first.id) {
        product.price = first.price;
    }
    (Shop::new(products), first)
}

fn word(product: &Product) -> &str {
    product.name.rsplit(' ').next().unwrap_or_default()
}

/// `shop-order`.
pub(super) fn order(draw: &mut Draw, difficulty: u8) -> Plan {
    let (shop, product) = shop(draw);
    let (id, name) = (&product.id, &product.name);
    let count = draw.whole(2, 6);
    let plan = Plan::new(World::Shop(shop));
    if difficulty == 1 {
        return plan
            .ask(draw.say([
                format!("Put {count} of {id} ({name}) into the cart."),
                format!("I want {count} of the {name}, that is {id}, in my cart."),
            ]))
            .call("set_in_cart", json!({"product": id, "count": count}));
    }
    let search = json!({"word": word(&product)});
    let set = |count: i32| json!({"product": id, "count": count});
    if difficulty == 2 {
        return plan
            .ask(draw.say([
                format!("Order the {name}, {count} times."),
                format!("Please buy {count} of the {name}: into the cart, and order."),
            ]))
            .call("search", search)
            .call("set_in_cart", set(count))
            .call("place_order", json!({}));
    }
    let more = count + draw.whole(1, 4);
    plan.ask(draw.say([
        format!("Put the {name} into the cart, {count} times."),
        format!("{count} of the {name} should be in my cart."),
    ]))
    .call("search", search)
    .call("set_in_cart", set(count))
    .ask(draw.say([
        format!("No, I need {more} in all. Change that, then order."),
        format!("Make it {more} instead, and place the order."),
    ]))
    .call("set_in_cart", set(more))
    .call("place_order", json!({}))
}

/// `shop-price`.
pub(super) fn price(draw: &mut Draw, difficulty: u8) -> Plan {
    let (shop, product) = shop(draw);
    let (id, name) = (&product.id, &product.name);
    let others = shop.products().iter().filter(|other| other.id != *id);
    let rivals: Vec<_> = others.map(|other| other.price.to_string()).collect();
    let count = draw.whole(2, 6);
    let total = product.price * count;
    let plan = Plan::new(World::Shop(shop));
    if difficulty == 2 {
        return plan
            .ask(draw.say([
                format!("Put the {name} into the cart, {count} times, and tell me the total of the cart."),
                format!("What is the total when {count} of the {name} are in my cart? Put them in and look."),
            ]))
            .call("search", json!({"word": word(&product)}))
            .call("set_in_cart", json!({"product": id, "count": count}))
            .call("view_cart", json!({}))
            .answer(total, rivals);
    }
    let plan = plan
        .ask(draw.say([
            format!("What does product {id} ({name}) cost?"),
            format!("Tell me the price of {id}, the {name}."),
        ]))
        .call("get_product", json!({"product": id}))
        .answer(product.price, rivals.clone());
    if difficulty == 1 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Order {count} of it, and tell me the total."),
        format!("Good. Buy {count}. What is the total of the order?"),
    ]))
    .call("set_in_cart", json!({"product": id, "count": count}))
    .call("place_order", json!({}))
    .answer(total, rivals)
}
