-- The source: a million rows, made from six digits. For MySQL and MariaDB.
CREATE TABLE shop.orders (
    id BIGINT PRIMARY KEY,
    shop_id INT NOT NULL,
    amount DECIMAL(18, 4) NOT NULL,
    remark VARCHAR(200) NULL,
    created_at DATETIME NOT NULL
);

INSERT INTO shop.orders
WITH digit AS (
    SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
    UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9
),
number AS (
    SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d + 100000 * f.d AS n
    FROM digit a CROSS JOIN digit b CROSS JOIN digit c CROSS JOIN digit d CROSS JOIN digit e CROSS JOIN digit f
)
SELECT
    n + 1,
    n % 97,
    n / 7,
    CASE WHEN n % 5 = 0 THEN NULL ELSE CONCAT('order ', n) END,
    TIMESTAMPADD(SECOND, n, '2026-01-01 00:00:00')
FROM number;
