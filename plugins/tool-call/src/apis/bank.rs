//! Accounts, transfers and bills, in whole coins.
//!
//! A transfer is never undone: sending it back is another one, and both stay in the list.

use serde_json::{Value, json};

use super::{Api, plain, unordered};
use crate::schema::{Arguments, Function, Kind, changes, reads, required};

/// What can be called.
pub const FUNCTIONS: [Function; 4] = [
    reads(
        "get_balance",
        "the coins in an account",
        &[required("account", Kind::Text)],
    ),
    reads(
        "find_bill",
        "a bill's account and amount",
        &[required("name", Kind::Text)],
    ),
    reads(
        "list_transfers",
        "transfers from an account",
        &[required("account", Kind::Text)],
    ),
    changes(
        "transfer",
        "moves coins",
        &[
            required("from", Kind::Text),
            required("to", Kind::Text),
            required("amount", Kind::Whole(1, 100_000)),
        ],
    ),
];

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Bank {
    accounts: Vec<(String, i64)>,
    /// Bills: whose, the account to pay to, the amount.
    pub bills: Vec<(String, String, i32)>,
    transfers: Vec<(String, String, i32)>,
}

impl Bank {
    /// A bank with these accounts and no bills.
    pub fn new(accounts: Vec<(String, i64)>) -> Self {
        Self {
            accounts,
            ..Self::default()
        }
    }

    fn place(&self, account: &str) -> Option<usize> {
        let same = |(name, _): &(String, i64)| plain(name) == plain(account);
        self.accounts.iter().position(same)
    }

    fn own(&self, account: &str) -> Result<usize, String> {
        let names: Vec<_> = self
            .accounts
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let place = self.place(account);
        place.ok_or_else(|| {
            format!(
                "there is no account `{account}`; there are {}",
                names.join(", ")
            )
        })
    }

    fn transfer(&mut self, given: &Arguments) -> Result<Value, String> {
        let (to, amount) = (given.text("to"), given.whole("amount"));
        let from = self.own(given.text("from"))?;
        let payee = self.bills.iter().map(|(_, account, _)| account);
        let payee = payee
            .clone()
            .find(|account| plain(account) == plain(to))
            .cloned();
        let own = match &payee {
            Some(_) => None,
            None => Some(self.own(to)?),
        };
        if own == Some(from) {
            return Err("`from` and `to` are the same account".into());
        }
        let balance = self.accounts[from].1;
        if balance < i64::from(amount) {
            return Err(format!(
                "there are only {balance} in {}",
                self.accounts[from].0
            ));
        }
        self.accounts[from].1 -= i64::from(amount);
        if let Some(own) = own {
            self.accounts[own].1 += i64::from(amount);
        }
        let to = match (payee, own) {
            (Some(payee), _) => payee,
            (None, own) => own.map_or_else(String::new, |own| self.accounts[own].0.clone()),
        };
        let from = self.accounts[from].0.clone();
        self.transfers.push((from, to, amount));
        Ok(json!({"sent": amount}))
    }
}

impl Api for Bank {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        match function {
            "get_balance" => {
                let (name, balance) = &self.accounts[self.own(given.text("account"))?];
                Ok(json!({"account": name, "balance": balance}))
            }
            "find_bill" => {
                let name = given.text("name");
                let bill = self.bills.iter().find(|bill| plain(&bill.0) == plain(name));
                let (name, account, amount) =
                    bill.ok_or_else(|| format!("there is no bill `{name}`"))?;
                Ok(json!({"name": name, "account": account, "amount": amount}))
            }
            "list_transfers" => {
                let account = &self.accounts[self.own(given.text("account"))?].0;
                let sent = self.transfers.iter().filter(|(from, ..)| from == account);
                let sent: Vec<_> = sent
                    .map(|(_, to, amount)| json!({"to": to, "amount": amount}))
                    .collect();
                Ok(json!({"transfers": sent}))
            }
            _ => self.transfer(given),
        }
    }

    fn canonical(&self) -> Value {
        let transfers = self.transfers.iter();
        json!([
            self.accounts,
            unordered(transfers.map(|(from, to, amount)| json!([from, to, amount])))
        ])
    }
}
