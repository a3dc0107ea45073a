//! Balances, transfers and bills.

use serde_json::json;

use super::words::{ACCOUNTS, PAYEES, PEOPLE};
use crate::{
    apis::{World, bank::Bank},
    draw::Draw,
    plan::Plan,
};

/// A bank with three accounts; the first is what the task is about.
struct Setting {
    bank: Bank,
    from: String,
    to: String,
    balance: i32,
    rivals: Vec<String>,
}

fn setting(draw: &mut Draw) -> Setting {
    let owner = draw.noun(&PEOPLE);
    let others = draw.others(&PEOPLE, &[owner], 2);
    let mut account = |owner: &str| format!("{owner}'s {}", draw.pick(&ACCOUNTS));
    let [from, to, third] = [owner, others[0], others[1]].map(&mut account);
    // Even, so that half of it is a whole number, and never among the others' balances.
    let balance = 2 * draw.whole(100, 400);
    let rest = [draw.whole(900, 1900), draw.whole(2000, 3000)];
    let accounts = vec![
        (from.clone(), i64::from(balance)),
        (to.clone(), i64::from(rest[0])),
        (third, i64::from(rest[1])),
    ];
    Setting {
        bank: Bank::new(draw.shuffled(accounts)),
        from,
        to,
        balance,
        rivals: rest.iter().map(i32::to_string).collect(),
    }
}

/// `bank-transfer`.
pub(super) fn transfer(draw: &mut Draw, difficulty: u8) -> Plan {
    let Setting {
        mut bank, from, to, ..
    } = setting(draw);
    let amount = draw.amount(20, 199);
    if difficulty == 2 {
        let payee = draw.noun(&PAYEES);
        let others = draw.others(&PAYEES, &[payee], 2);
        for name in draw.shuffled(vec![payee, others[0], others[1]]) {
            let account = format!("AC-{}", draw.whole(1000, 9999));
            bank.bills
                .push((name.to_owned(), account, draw.whole(20, 199)));
        }
        let bill = bank.bills.iter().find(|bill| bill.0 == payee).cloned();
        let (_, account, amount) = bill.unwrap_or_default();
        return Plan::new(World::Bank(bank))
            .ask(draw.say([
                format!("Pay the {payee} bill from {from}."),
                format!("There is a {payee} bill. Please pay it from {from}."),
                format!("Use {from} to pay what I owe for {payee}."),
            ]))
            .call("find_bill", json!({"name": payee}))
            .call(
                "transfer",
                json!({"from": from, "to": account, "amount": amount}),
            );
    }
    let plan = Plan::new(World::Bank(bank))
        .ask(draw.say([
            format!("Transfer {amount} from {from} to {to}."),
            format!("Please move {amount} coins from {from} to {to}."),
            format!("I need {amount} more in {to}. Take it from {from}."),
        ]))
        .call(
            "transfer",
            json!({"from": from, "to": to, "amount": amount}),
        );
    if difficulty == 1 {
        return plan;
    }
    let back = draw.whole(5, 15);
    plan.ask(draw.say([
        format!("That was too much. Transfer {back} back from {to} to {from}."),
        format!("Hm, {back} too many. Please send those back."),
    ]))
    .call("transfer", json!({"from": to, "to": from, "amount": back}))
}

/// `bank-balance`.
pub(super) fn balance(draw: &mut Draw, difficulty: u8) -> Plan {
    let Setting {
        bank,
        from,
        to,
        balance,
        rivals,
    } = setting(draw);
    let plan = Plan::new(World::Bank(bank));
    if difficulty == 2 {
        return plan
            .ask(draw.say([
                format!("Move all coins from {from} to {to}."),
                format!("Empty {from}: everything in it goes to {to}."),
            ]))
            .call("get_balance", json!({"account": from}))
            .call(
                "transfer",
                json!({"from": from, "to": to, "amount": balance}),
            );
    }
    let plan = plan
        .ask(draw.say([
            format!("How many coins are in {from}?"),
            format!("What is the balance of {from}?"),
            format!("Tell me how much I have in {from}."),
        ]))
        .call("get_balance", json!({"account": from}))
        .answer(balance, rivals);
    if difficulty == 1 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Now move half of that to {to}."),
        format!("Good. Half of it should go to {to}."),
    ]))
    .call(
        "transfer",
        json!({"from": from, "to": to, "amount": balance / 2}),
    )
}
