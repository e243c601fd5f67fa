//! The admin service's laws: who may do what, what is answered, that what is
//! refused changes nothing, and that streams neither pile up nor hang.

mod guards;
mod reading;
mod refused;
mod resources;
mod served;
mod site;
mod steering;
mod streams;
