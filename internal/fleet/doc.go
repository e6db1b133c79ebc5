// Package fleet keeps records of agent, of many machines, in a database that its users already run, and answers
// questions about all of them: who pays what, which machines are unlike their twins, what a rollout costs.
//
// A [Store] is a SQLite file or a PostgreSQL database. Both have the tables of the folder migrations: record has each
// document with the columns that questions need, setup each combination of what machines are, once. Questions take from
// the store the newest record of each machine in each of its setups ([Store.Newest]); the statistics are Go, and the
// same for both. No question reads a document.
package fleet
