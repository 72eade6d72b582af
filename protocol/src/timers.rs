//! Many deadlines, few of which fire.
