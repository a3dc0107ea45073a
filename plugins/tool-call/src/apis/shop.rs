//! Products with prices and stock, one cart, and orders.

use serde_json::{Value, json};

use super::{Api, plain, unordered};
use crate::schema::{Arguments, Function, Kind, Parameter, changes, reads, required};

const PRODUCT: Parameter = required("product", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 5] = [
    reads(
        "search",
        "products by a word of their name",
        &[required("word", Kind::Text)],
    ),
    reads("get_product", "price and stock of a product", &[PRODUCT]),
    changes(
        "set_in_cart",
        "how many of a product are in the cart",
        &[PRODUCT, required("count", Kind::Whole(0, 20))],
    ),
    reads("view_cart", "the cart and its total", &[]),
    changes("place_order", "orders what is in the cart", &[]),
];

/// A product.
#[derive(Clone, Debug)]
pub struct Product {
    /// For example `P12`.
    pub id: String,
    /// What it is.
    pub name: String,
    /// In whole coins.
    pub price: i32,
    /// How many there are.
    pub stock: i32,
}

impl Product {
    fn shown(&self) -> Value {
        json!({"product": self.id, "name": self.name, "price": self.price, "stock": self.stock})
    }
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Shop {
    products: Vec<Product>,
    /// The product's place, and how many.
    cart: Vec<(usize, i32)>,
    orders: Vec<Vec<(usize, i32)>>,
}

impl Shop {
    /// A shop that sells these, with an empty cart.
    pub fn new(products: Vec<Product>) -> Self {
        Self {
            products,
            ..Self::default()
        }
    }

    /// What is sold.
    pub fn products(&self) -> &[Product] {
        &self.products
    }

    fn place(&self, id: &str) -> Result<usize, String> {
        let mut products = self.products.iter();
        let place = products.position(|product| product.id.eq_ignore_ascii_case(id));
        place.ok_or_else(|| format!("there is no product `{id}`; an id is like P12"))
    }

    fn total(&self) -> i64 {
        let price = |place: usize| self.products.get(place).map_or(0, |product| product.price);
        let lines = self.cart.iter();
        lines
            .map(|(place, count)| i64::from(price(*place)) * i64::from(*count))
            .sum()
    }

    fn set(&mut self, id: &str, count: i32) -> Result<Value, String> {
        let place = self.place(id)?;
        let stock = self.products[place].stock;
        if count > stock {
            return Err(format!(
                "there are only {stock} of {}",
                self.products[place].id
            ));
        }
        self.cart.retain(|(other, _)| *other != place);
        if count > 0 {
            self.cart.push((place, count));
        }
        Ok(json!({"product": self.products[place].id, "count": count}))
    }

    fn order(&mut self) -> Result<Value, String> {
        if self.cart.is_empty() {
            return Err("the cart is empty".into());
        }
        let total = self.total();
        let cart = std::mem::take(&mut self.cart);
        for (place, count) in &cart {
            self.products[*place].stock -= count;
        }
        self.orders.push(cart);
        Ok(json!({"order": self.orders.len(), "total": total}))
    }
}

impl Api for Shop {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        match function {
            "search" => {
                let word = plain(given.text("word"));
                let found = self
                    .products
                    .iter()
                    .filter(|product| plain(&product.name).contains(&word));
                let found: Vec<_> = found.map(Product::shown).collect();
                if found.is_empty() {
                    return Err(format!("no product's name has `{word}` in it"));
                }
                Ok(json!({"products": found}))
            }
            "get_product" => Ok(self.products[self.place(given.text("product"))?].shown()),
            "set_in_cart" => self.set(given.text("product"), given.whole("count")),
            "view_cart" => {
                let line = |(place, count): &(usize, i32)| json!({"product": self.products[*place].id, "count": count});
                let lines: Vec<_> = self.cart.iter().map(line).collect();
                Ok(json!({"cart": lines, "total": self.total()}))
            }
            _ => self.order(),
        }
    }

    fn canonical(&self) -> Value {
        let lines = |cart: &Vec<(usize, i32)>| unordered(cart.iter().map(|line| json!(line)));
        json!([lines(&self.cart), unordered(self.orders.iter().map(lines))])
    }
}
