//! Query connections: to MySQL sources and to StarRocks' query port.
