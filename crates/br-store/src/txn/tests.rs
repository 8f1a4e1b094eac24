mod client;
mod commands;
mod history;
