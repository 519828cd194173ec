//! What workers count. Each worker writes its own set; the control side reads and adds.
