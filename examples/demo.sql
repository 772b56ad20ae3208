-- The two tables of the demo: `examples/starrocks-to-starrocks.json` copies the first into the second.
CREATE DATABASE demo;

CREATE TABLE demo.orders_src (
    id BIGINT NOT NULL,
    shop_id INT NULL,
    amount DECIMAL(18, 4) NULL,
    price DOUBLE NULL,
    remark VARCHAR(500) NULL,
    city VARCHAR(64) NULL,
    created_at DATETIME NULL,
    order_date DATE NULL,
    paid BOOLEAN NULL,
    big LARGEINT NULL
)
DUPLICATE KEY (id)
DISTRIBUTED BY HASH (id) BUCKETS 8
PROPERTIES ("replication_num" = "1");

CREATE TABLE demo.orders_dst (
    id BIGINT NOT NULL,
    shop_id INT NULL,
    amount DECIMAL(18, 4) NULL,
    price DOUBLE NULL,
    remark VARCHAR(500) NULL,
    city VARCHAR(64) NULL,
    created_at DATETIME NULL,
    order_date DATE NULL,
    paid BOOLEAN NULL,
    big LARGEINT NULL
)
DUPLICATE KEY (id)
DISTRIBUTED BY HASH (id) BUCKETS 8
PROPERTIES ("replication_num" = "1");
